//! Calls of the machine: arguments, and macros, which are frames of it.

use super::{FRAMES_MAX, Frame, Machine, NOT_GIVEN, WAITING_MAX};
use crate::chat::call::{self, Arguments};
use crate::chat::fault::{Fault, fault};
use crate::chat::heap::{Macro, Object};
use crate::chat::program::Call;
use crate::chat::value::{Missing, Value};

impl Machine<'_> {
    pub(super) fn make_macro(&mut self, info: usize, behind: i32) -> Result<(), Fault> {
        let own = &self.variables[self.base()..];
        let outer = self.frames.last().map_or(&[][..], |frame| &frame.closure);
        self.heap.take_values((own.len() + outer.len()) * 2)?;
        let closure = outer.iter().chain(own).cloned().collect();
        let value = self.heap.add(Object::Macro(Macro {
            info,
            entry: self.at,
            closure,
        }))?;
        self.stack.push(value);
        self.jump(behind);
        Ok(())
    }

    /// Pops the arguments of a call.
    pub(super) fn arguments(&mut self, call: u32) -> Result<Arguments, Fault> {
        let program = self.program;
        let call: &Call = &program.calls[call as usize];
        let before = call.list_at.unwrap_or(0);
        let mut named = self.pop_many(call.names.len() - before);
        let list = call.list_at.map(|_| self.pop());
        named.splice(..0, self.pop_many(before));
        let mut arguments = Arguments {
            places: self.pop_many(call.places),
            named: call.names.iter().cloned().zip(named).collect(),
        };
        if let Some(list) = list {
            arguments.places.extend(self.heap.iterate(&list)?);
        }
        Ok(arguments)
    }

    pub(super) fn call(&mut self, call: u32) -> Result<(), Fault> {
        let arguments = self.arguments(call)?;
        let callee = self.pop();
        let target = match callee {
            Value::Object(number) => match self.heap.object(number) {
                Object::Macro(_) => Some(number),
                Object::Loop(state) => state.recurse,
                _ => None,
            },
            _ => None,
        };
        if let Some(target) = target {
            return self.begin_macro(target, arguments);
        }
        let result = call::call(&mut self.heap, &callee, arguments)?;
        self.stack.push(result);
        Ok(())
    }

    fn begin_macro(&mut self, number: u32, arguments: Arguments) -> Result<(), Fault> {
        let Object::Macro(target) = self.heap.object(number) else {
            return Err(fault!("the object is not callable"));
        };
        let Macro {
            info,
            entry,
            closure,
        } = target.clone();
        if self.frames.len() >= FRAMES_MAX {
            return Err(Fault::limit(format!(
                "macros call each other deeper than {FRAMES_MAX}"
            )));
        }
        if self.stack.len() > WAITING_MAX {
            return Err(Fault::limit(format!(
                "more than {WAITING_MAX} values wait for a macro"
            )));
        }
        let info = &self.program.macros[info];
        self.heap.take(size_of::<Frame>())?;
        self.frames.push(Frame {
            back: self.at,
            closure,
            variables: self.variables.len(),
            scopes: self.scopes.len(),
            loops: self.loops.len(),
            recurse: info.is_loop.then_some(number),
        });
        self.open_scope()?;
        let (bound, caller) = call::bind_macro(&mut self.heap, self.program, info, arguments)?;
        for (name, value) in info.parameters.iter().zip(bound) {
            let missing = Value::Undefined(Missing::Nothing(NOT_GIVEN));
            self.store(*name, value.unwrap_or(missing))?;
        }
        if let (Some(name), Some(caller)) = (self.caller_name, caller) {
            self.store(name, caller)?;
        }
        self.capture()?;
        self.at = entry;
        Ok(())
    }

    /// Whether there is something to go back to.
    pub(super) fn end_macro(&mut self) -> Result<bool, Fault> {
        let Some(frame) = self.frames.pop() else {
            return Ok(false);
        };
        self.variables.truncate(frame.variables);
        self.scopes.truncate(frame.scopes);
        self.loops.truncate(frame.loops);
        self.at = frame.back;
        let text = self.texts.pop().expect("a macro's text was captured");
        self.stack.push(text.into());
        Ok(true)
    }
}
