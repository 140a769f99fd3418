//! Runs a program: a machine with a stack, variables in scopes, and text that is written.
//!
//! Nothing here calls itself: macros are frames of this machine, so that no template can end the
//! stack of the thread. Every operation is paid for.

mod loops;
mod macros;

use std::sync::Arc;

use super::attributes::{item, member, slice};
use super::call;
use super::fault::{Fault, fault};
use super::filters;
use super::heap::{Heap, Object};
use super::operators::{compare, concatenate, negate, operate};
use super::predicates;
use super::print::text_of;
use super::program::{Op, Program};
use super::value::{Dict, Function, Kind, Missing, Value};

/// How deep macros may call each other.
const FRAMES_MAX: usize = 200;
/// How many variables the scopes of the template or of a macro may have: they are looked up one by
/// one.
const VARIABLES_MAX: usize = 500;
/// How many values may wait on the stack while a macro is called.
const WAITING_MAX: usize = 100_000;
/// What a parameter is that was not given.
const NOT_GIVEN: &str = "a parameter was not provided";

pub(super) struct Machine<'a> {
    program: &'a Program,
    pub heap: Heap,
    /// Variables that the template was given, and functions.
    globals: &'a [Option<Value>],
    /// Variables that the template has set outside of any scope, by name.
    top: Vec<Option<Value>>,
    stack: Vec<Value>,
    /// Variables of scopes, the innermost last.
    variables: Vec<(u32, Value)>,
    /// Where the scopes begin in `variables`.
    scopes: Vec<usize>,
    loops: Vec<Running>,
    frames: Vec<Frame>,
    /// Captured texts; the first one is the output.
    texts: Vec<String>,
    output_max: usize,
    at: usize,
    /// Whether the body of the loop that has just ended had begun.
    looped: bool,
    /// The numbers of the names `loop` and `caller`, if the template has them.
    loop_name: Option<u32>,
    caller_name: Option<u32>,
}

struct Running {
    object: u32,
    /// What there was of each when its body began: a loop may be left out of more.
    scopes: usize,
    texts: usize,
    collected: Vec<Value>,
    /// Whether the body has begun.
    entered: bool,
}

/// A macro that runs.
struct Frame {
    back: usize,
    closure: Arc<[(u32, Value)]>,
    /// What there was of each when it began.
    variables: usize,
    scopes: usize,
    loops: usize,
    /// Its number if it is the body of a recursive loop.
    recurse: Option<u32>,
}

impl<'a> Machine<'a> {
    pub fn new(
        program: &'a Program,
        globals: &'a [Option<Value>],
        heap: Heap,
        output_max: usize,
    ) -> Self {
        Self {
            program,
            heap,
            globals,
            top: vec![None; program.names.len()],
            stack: Vec::new(),
            variables: Vec::new(),
            scopes: Vec::new(),
            loops: Vec::new(),
            frames: Vec::new(),
            texts: vec![String::new()],
            output_max,
            at: 0,
            looped: false,
            loop_name: number_of(program, "loop"),
            caller_name: number_of(program, "caller"),
        }
    }

    /// The text that the template writes; a fault comes with its line.
    pub fn run(mut self) -> Result<String, (Fault, u32)> {
        loop {
            let (op, line) = self.program.code[self.at];
            self.at += 1;
            match self.step(op) {
                Ok(true) => {}
                Ok(false) => return Ok(self.texts.swap_remove(0)),
                Err(fault) => return Err((fault, line)),
            }
        }
    }

    /// Whether it goes on.
    fn step(&mut self, op: Op) -> Result<bool, Fault> {
        self.heap.spend(1)?;
        match op {
            Op::Constant(number) => {
                self.stack
                    .push(self.program.constants[number as usize].clone());
            }
            Op::Load(name) => {
                let closure = self.frames.last().map_or(0, |frame| frame.closure.len());
                let looked_through = self.variables.len() - self.base() + closure;
                self.heap.spend(looked_through / 16)?;
                let value = self.load(name);
                self.stack.push(value);
            }
            Op::Store(name) => {
                let value = self.pop();
                self.store(name, value)?;
            }
            Op::StoreMember(name, of) => self.store_member(name, of)?,
            Op::Unpack(count) => self.unpack(count as usize)?,
            Op::Write(number) => {
                let program = self.program;
                if let Value::Text(text) = &program.constants[number as usize] {
                    self.write(text)?;
                }
            }
            Op::Emit => {
                let value = self.pop();
                match &value {
                    Value::Text(text) | Value::Markup(text) => self.write(text)?,
                    other => {
                        let text = text_of(&mut self.heap, other)?;
                        self.write(&text)?;
                    }
                }
            }
            Op::Return => return self.end_macro(),
            Op::Jump(_)
            | Op::JumpIfFalse(_)
            | Op::JumpIfFalseKeep(_)
            | Op::JumpIfTrueKeep(_)
            | Op::JumpIfLooped(_)
            | Op::IfMissing(..) => self.branch(op)?,
            Op::Iterate | Op::Next(_) | Op::Enter | Op::EndLoop | Op::Collect | Op::EndCollect => {
                self.loop_step(op)?;
            }
            Op::PushScope => self.open_scope()?,
            Op::PopScope => self.close_scope(),
            Op::PushCapture => self.capture()?,
            Op::PopCapture => {
                let text = self.texts.pop().expect("captures are opened before");
                self.stack.push(text.into());
            }
            Op::Macro(info, behind) => self.make_macro(info as usize, behind)?,
            Op::Fail(number) => {
                let message = &self.program.constants[number as usize];
                return Err(Fault::syntax(message.text().map_or("", |text| text)));
            }
            Op::Call(call) => self.call(call)?,
            other => {
                let value = self.compute(other)?;
                self.stack.push(value);
            }
        }
        Ok(true)
    }

    /// Operations that only make a value of others.
    fn compute(&mut self, op: Op) -> Result<Value, Fault> {
        match op {
            Op::Member(name) => {
                let value = self.pop();
                let name = &self.program.names[name as usize];
                self.heap.spend(name.len() / 512)?;
                member(&self.heap, &value, name)
            }
            Op::Item => {
                let (key, value) = (self.pop().plain(), self.pop().plain());
                item(&mut self.heap, &value, &key)
            }
            Op::Slice => {
                let (step, end, begin) = (self.pop(), self.pop(), self.pop());
                let value = self.pop().plain();
                slice(&mut self.heap, &value, &begin, &end, &step)
            }
            Op::List(count) => self.sequence(Kind::List, count),
            Op::Tuple(count) => self.sequence(Kind::Tuple, count),
            Op::Dict(count) => {
                let items = self.pop_many(count as usize * 2);
                let mut dict = Dict::default();
                for pair in items.chunks_exact(2) {
                    self.heap.walk(&pair[0])?;
                    dict.insert(pair[0].clone(), pair[1].clone())?;
                }
                self.heap.dict(dict)
            }
            Op::Filter(filter, call) => {
                let arguments = self.arguments(call)?;
                let value = self.pop();
                filters::apply(&mut self.heap, filter, value, arguments)
            }
            Op::Test(test, call) => {
                let arguments = self.arguments(call)?;
                let value = self.pop().plain();
                predicates::test(&mut self.heap, test, &value, arguments.plain()).map(Value::Bool)
            }
            Op::Binary(binary) => {
                let (b, a) = (self.pop(), self.pop());
                operate(&mut self.heap, binary, &a, &b)
            }
            Op::Concat(count) => {
                let parts = self.pop_many(count as usize);
                concatenate(&mut self.heap, &parts)
            }
            Op::Compare(operator) => {
                let (b, a) = (self.pop().plain(), self.pop().plain());
                compare(&mut self.heap, operator, &a, &b).map(Value::Bool)
            }
            Op::Not => Ok(Value::Bool(!self.pop().is_true())),
            Op::Negate => negate(&self.pop(), true),
            Op::Plus => negate(&self.pop(), false),
            other => Err(fault!("{other:?} makes no value")),
        }
    }

    fn pop(&mut self) -> Value {
        self.stack.pop().expect("the parser balances the stack")
    }

    fn pop_many(&mut self, count: usize) -> Vec<Value> {
        self.stack.split_off(self.stack.len() - count)
    }

    fn unpack(&mut self, count: usize) -> Result<(), Fault> {
        let value = self.pop();
        let items = self.heap.iterate(&value)?;
        if items.len() != count {
            let found = items.len();
            return Err(fault!("expected {count} values to unpack, found {found}"));
        }
        self.stack.extend(items.into_iter().rev());
        Ok(())
    }

    fn sequence(&mut self, kind: Kind, count: u32) -> Result<Value, Fault> {
        let items = self.pop_many(count as usize);
        self.heap.seq(kind, items)
    }

    fn write(&mut self, text: &str) -> Result<(), Fault> {
        self.heap.take(text.len())?;
        let place = self.texts.last_mut().expect("there is always the output");
        if place.len() + text.len() > self.output_max {
            let most = self.output_max;
            return Err(Fault::limit(format!("it writes more than {most} bytes")));
        }
        place.push_str(text);
        Ok(())
    }

    fn capture(&mut self) -> Result<(), Fault> {
        self.heap.take(size_of::<String>())?;
        self.texts.push(String::new());
        Ok(())
    }

    /// Where the variables of the frame begin.
    fn base(&self) -> usize {
        self.frames.last().map_or(0, |frame| frame.variables)
    }

    fn load(&self, name: u32) -> Value {
        let find = |variables: &[(u32, Value)]| {
            let found = variables.iter().rev().find(|(own, _)| *own == name);
            found.map(|(_, value)| value.clone())
        };
        find(&self.variables[self.base()..])
            .or_else(|| find(&self.frames.last()?.closure))
            .or_else(|| self.top[name as usize].clone())
            .or_else(|| self.globals[name as usize].clone())
            .unwrap_or_else(|| {
                let name = self.program.names[name as usize].clone();
                Value::Undefined(Missing::Name(name))
            })
    }

    fn store(&mut self, name: u32, value: Value) -> Result<(), Fault> {
        let scope = match (self.scopes.last(), self.frames.last()) {
            (None, None) => {
                self.top[name as usize] = Some(value);
                return Ok(());
            }
            (scope, frame) => {
                let base = frame.map_or(0, |frame| frame.variables);
                scope.map_or(base, |scope| base.max(*scope))
            }
        };
        let count = self.variables.len() - self.base();
        let own = self.variables[scope..].iter_mut();
        match own.rev().find(|(own, _)| *own == name) {
            Some((_, place)) => *place = value,
            None if count >= VARIABLES_MAX => {
                return Err(Fault::limit("it has too many variables"));
            }
            None => {
                self.heap.take(size_of::<(u32, Value)>())?;
                self.variables.push((name, value));
            }
        }
        Ok(())
    }

    fn store_member(&mut self, name: u32, of: u32) -> Result<(), Fault> {
        let value = self.pop();
        let key = self.program.names[of as usize].clone();
        self.heap.spend(key.len() / 512)?;
        let namespace = match self.load(name) {
            Value::Object(number) => match self.heap.object_mut(number) {
                Object::Namespace(dict) => Some(dict),
                _ => None,
            },
            _ => None,
        };
        let namespace =
            namespace.ok_or_else(|| fault!("cannot assign attribute on non-namespace object"))?;
        call::check_member(&key)?;
        namespace.insert(Value::Text(key), value)?;
        self.heap.take(2 * size_of::<Value>())
    }

    fn open_scope(&mut self) -> Result<(), Fault> {
        self.heap.take(size_of::<usize>())?;
        self.scopes.push(self.variables.len());
        Ok(())
    }

    fn close_scope(&mut self) {
        let begin = self.scopes.pop().expect("scopes are opened before");
        self.variables.truncate(begin);
    }

    fn jump(&mut self, by: i32) {
        // The parser leads jumps to places inside the code.
        self.at = (self.at as i64 + i64::from(by)) as usize;
    }

    fn branch(&mut self, op: Op) -> Result<(), Fault> {
        match op {
            Op::Jump(by) => self.jump(by),
            Op::JumpIfFalse(by) => {
                let value = self.pop();
                if !value.is_true() {
                    self.jump(by);
                }
            }
            Op::JumpIfFalseKeep(by) | Op::JumpIfTrueKeep(by) => {
                let wanted = matches!(op, Op::JumpIfTrueKeep(_));
                match self
                    .stack
                    .last()
                    .is_some_and(|value| value.is_true() == wanted)
                {
                    true => self.jump(by),
                    false => drop(self.pop()),
                }
            }
            Op::JumpIfLooped(by) if self.looped => self.jump(by),
            Op::IfMissing(name, by) => {
                let value = self.load(name);
                let missing = matches!(value, Value::Undefined(Missing::Nothing(NOT_GIVEN)));
                if !missing {
                    self.jump(by);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// The functions that every template knows.
pub(super) const FUNCTIONS: [(&str, Function); 5] = [
    ("range", Function::Range),
    ("dict", Function::Dict),
    ("namespace", Function::Namespace),
    ("raise_exception", Function::RaiseException),
    ("strftime_now", Function::StrftimeNow),
];

/// The number of a name, if the template has it.
fn number_of(program: &Program, name: &str) -> Option<u32> {
    let found = program.names.iter().position(|own| **own == *name);
    found.map(|number| number as u32)
}
