//! Loops of the machine: what they go over, and the object `loop` that templates see.

use super::{Machine, Running};
use crate::chat::fault::Fault;
use crate::chat::heap::{Loop, Object};
use crate::chat::program::Op;
use crate::chat::value::Value;

impl Machine<'_> {
    pub(super) fn loop_step(&mut self, op: Op) -> Result<(), Fault> {
        match op {
            Op::Iterate => self.begin_loop()?,
            Op::Next(end) => {
                self.leave_inner();
                let begin = *self.scopes.last().expect("a loop has a scope");
                self.variables.truncate(begin);
                if let (Some(name), Some(running)) = (self.loop_name, self.loops.last()) {
                    self.variables.push((name, Value::Object(running.object)));
                }
                let state = self.innermost();
                let at = state.at.map_or(0, |at| at + 1);
                match state.items.get(at).cloned() {
                    Some(item) => {
                        state.at = Some(at);
                        self.stack.push(item);
                    }
                    None => self.jump(end),
                }
            }
            Op::Enter => {
                let running = self.loops.last_mut().expect("it runs in a loop");
                running.entered = true;
            }
            Op::EndLoop => self.looped = self.end_loop().entered,
            Op::Collect => {
                let state = self.innermost();
                let item = state.at.and_then(|at| state.items.get(at)).cloned();
                self.heap.take(size_of::<Value>())?;
                let running = self.loops.last_mut().expect("it runs in a loop");
                running.collected.extend(item);
            }
            _ => {
                let items = self.end_loop().collected;
                let list = self.heap.list(items)?;
                self.stack.push(list);
            }
        }
        Ok(())
    }

    fn innermost(&mut self) -> &mut Loop {
        let running = self.loops.last().expect("it runs in a loop");
        match self.heap.object_mut(running.object) {
            Object::Loop(state) => state,
            other => unreachable!("{other:?} is no loop"),
        }
    }

    fn begin_loop(&mut self) -> Result<(), Fault> {
        let value = self.pop();
        let items = self.heap.iterate(&value)?;
        let recurse = self.frames.last().and_then(|frame| frame.recurse);
        let outer = self.frames.iter().rev();
        let depth = outer.take_while(|frame| frame.recurse.is_some()).count();
        let object = self.heap.add(Object::Loop(Loop {
            items,
            at: None,
            depth: depth.max(1),
            seen: None,
            recurse,
        }))?;
        self.open_scope()?;
        if let Value::Object(object) = object {
            self.loops.push(Running {
                object,
                scopes: self.scopes.len(),
                texts: self.texts.len(),
                collected: Vec::new(),
                entered: false,
            });
        }
        Ok(())
    }

    /// Closes what a body has opened and was left out of.
    fn leave_inner(&mut self) {
        let running = self.loops.last().expect("it runs in a loop");
        self.scopes.truncate(running.scopes);
        self.texts.truncate(running.texts);
    }

    fn end_loop(&mut self) -> Running {
        self.leave_inner();
        self.close_scope();
        let running = self.loops.pop().expect("it runs in a loop");
        // Nobody goes through it again, but a template may still have `loop` in a variable.
        if let Object::Loop(state) = self.heap.object_mut(running.object) {
            state.items = Vec::new();
        }
        running
    }
}
