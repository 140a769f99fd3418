//! What a template is compiled to: operations of a stack machine.
//!
//! Jumps are relative to the operation behind them, so that code can be moved while it is made.

use std::sync::Arc;

use super::filters::Filter;
use super::predicates::Predicate;
use super::value::Value;

/// A compiled template.
#[derive(Debug, Default)]
pub(super) struct Program {
    /// Each operation with its line.
    pub code: Vec<(Op, u32)>,
    pub constants: Vec<Value>,
    pub names: Vec<Arc<str>>,
    pub calls: Vec<Call>,
    pub macros: Vec<MacroInfo>,
}

/// The arguments of a call as they lie on the stack: places, names (`*` may be in their midst).
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Call {
    pub places: usize,
    pub names: Vec<Arc<str>>,
    /// How many names stand before what `*` spreads, if it is there.
    pub list_at: Option<usize>,
}

#[derive(Debug)]
pub(super) struct MacroInfo {
    pub name: Arc<str>,
    /// Names of the parameters.
    pub parameters: Vec<u32>,
    pub is_loop: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Binary {
    Add,
    Subtract,
    Multiply,
    Divide,
    FloorDivide,
    Remainder,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Compare {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    In,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Op {
    /// Pushes a constant.
    Constant(u32),
    /// Pushes a variable.
    Load(u32),
    /// Pops into a variable of the innermost scope.
    Store(u32),
    /// Pops into a member of a namespace: the variable, the member.
    StoreMember(u32, u32),
    /// Writes a constant text.
    Write(u32),
    /// Pops and writes.
    Emit,
    /// Pops a sequence of that many and pushes its items, the last one first.
    Unpack(u32),
    /// Pops the value, pushes its member of that name.
    Member(u32),
    /// Pops key and value, pushes the item.
    Item,
    /// Pops step, end, begin and value, pushes the part.
    Slice,
    List(u32),
    Tuple(u32),
    /// Pops that many pairs.
    Dict(u32),
    /// Pops arguments and what is called.
    Call(u32),
    Filter(Filter, u32),
    Test(Predicate, u32),
    Binary(Binary),
    Concat(u32),
    Compare(Compare),
    Not,
    Negate,
    Plus,
    Jump(i32),
    /// Pops; jumps if it is false.
    JumpIfFalse(i32),
    /// Pops, but jumps and keeps it if it is false, or if it is true.
    JumpIfFalseKeep(i32),
    JumpIfTrueKeep(i32),
    /// Pops what a loop goes over.
    Iterate,
    /// Pushes the next item into a new scope, or jumps.
    Next(i32),
    /// Notes that the body of the loop begins.
    Enter,
    /// Ends the innermost loop.
    EndLoop,
    /// Jumps if the body of the loop that has just ended has begun.
    JumpIfLooped(i32),
    /// Keeps the item that a filter of a loop let through; they are a list afterwards.
    Collect,
    EndCollect,
    PushScope,
    PopScope,
    PushCapture,
    /// Pushes what was written since.
    PopCapture,
    /// Pushes a macro whose code comes next, and goes behind that.
    Macro(u32, i32),
    /// Goes on if the parameter was not given; the default value is computed and stored next.
    IfMissing(u32, i32),
    /// Ends a macro.
    Return,
    /// Fails, with a constant text: what is unknown matters only where it is used.
    Fail(u32),
}

impl Op {
    /// How far it jumps, if it is a jump.
    pub fn jump(&mut self) -> Option<&mut i32> {
        match self {
            Self::Jump(by)
            | Self::JumpIfFalse(by)
            | Self::JumpIfFalseKeep(by)
            | Self::JumpIfTrueKeep(by)
            | Self::JumpIfLooped(by)
            | Self::Next(by)
            | Self::Macro(_, by)
            | Self::IfMissing(_, by) => Some(by),
            _ => None,
        }
    }
}
