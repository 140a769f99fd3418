//! What parsing goes on with: the token that comes next, and the program as far as it is made.
//!
//! The grammar itself, Jinja's, is in `expressions` and `statements`; both make operations in one
//! pass. Functions that call themselves count how deep they are: a source can nest, but not so deep
//! that a small stack would end.

use std::collections::HashMap;
use std::sync::Arc;

use super::fault::Fault;
use super::lexer::{Token, Tokens};
use super::program::{Op, Program};
use super::value::Value;

/// How deep expressions and blocks may nest, counted in calls of the parser.
const NESTING_MAX: u32 = 100;

pub(super) struct Parser {
    pub tokens: Tokens,
    pub at: usize,
    depth: u32,
    pub program: Program,
    names: HashMap<Arc<str>, u32>,
    texts: HashMap<Arc<str>, u32>,
    /// The loops around what is parsed, as far as `break` reaches.
    pub loops: Vec<LoopContext>,
}

#[derive(Default)]
pub(super) struct LoopContext {
    /// Where jumps to its end begin.
    pub breaks: Vec<usize>,
    pub next: usize,
}

pub(super) type Parsed<T = ()> = Result<T, Fault>;

impl Parser {
    pub fn new(tokens: Tokens) -> Self {
        Self {
            tokens,
            at: 0,
            depth: 0,
            program: Program::default(),
            names: HashMap::new(),
            texts: HashMap::new(),
            loops: Vec::new(),
        }
    }

    pub fn line(&self) -> u32 {
        self.tokens[self.at].1
    }

    pub fn token(&self) -> &Token {
        &self.tokens[self.at].0
    }

    /// Goes on to the next token; the last one is never left.
    pub fn advance(&mut self) {
        self.at = (self.at + 1).min(self.tokens.len() - 1);
    }

    pub fn is_operator(&self, operator: &str) -> bool {
        matches!(self.token(), Token::Operator(own) if *own == operator)
    }

    pub fn is_name(&self, name: &str) -> bool {
        matches!(self.token(), Token::Name(own) if &**own == name)
    }

    pub fn skip_operator(&mut self, operator: &str) -> bool {
        let found = self.is_operator(operator);
        if found {
            self.advance();
        }
        found
    }

    pub fn skip_name(&mut self, name: &str) -> bool {
        let found = self.is_name(name);
        if found {
            self.advance();
        }
        found
    }

    pub fn expect_operator(&mut self, operator: &str) -> Parsed {
        if self.skip_operator(operator) {
            return Ok(());
        }
        Err(self.unexpected(&format!("'{operator}'")))
    }

    pub fn expect(&mut self, token: Token, what: &str) -> Parsed {
        if *self.token() != token {
            return Err(self.unexpected(what));
        }
        self.advance();
        Ok(())
    }

    pub fn name(&mut self) -> Parsed<Arc<str>> {
        let Token::Name(name) = self.token() else {
            return Err(self.unexpected("a name"));
        };
        let name = name.clone();
        self.advance();
        Ok(name)
    }

    pub fn unexpected(&self, expected: &str) -> Fault {
        let found = match self.token() {
            Token::Data(_) => "text".into(),
            Token::BlockBegin => "the begin of a block".into(),
            Token::BlockEnd => "the end of the block".into(),
            Token::VariableBegin => "the begin of an expression".into(),
            Token::VariableEnd => "the end of the expression".into(),
            Token::Name(name) => format!("'{name}'"),
            Token::Text(_) => "a string".into(),
            Token::Int(_) | Token::Float(_) => "a number".into(),
            Token::Operator(operator) => format!("'{operator}'"),
            Token::End => "the end of the template".into(),
        };
        Fault::syntax(format!("expected {expected}, found {found}"))
    }

    /// Runs a part of the parser that may come to itself.
    pub fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.depth >= NESTING_MAX {
            let message = format!("expressions and blocks nest deeper than {NESTING_MAX}");
            return Err(Fault::syntax(message));
        }
        self.depth += 1;
        let result = parse(self);
        self.depth -= 1;
        result
    }

    pub fn emit(&mut self, op: Op) -> usize {
        let line = self.line();
        self.program.code.push((op, line));
        self.program.code.len() - 1
    }

    pub fn here(&self) -> usize {
        self.program.code.len()
    }

    /// Makes the jump at `from` lead to `to`.
    pub fn lead(&mut self, from: usize, to: usize) {
        // The source is far shorter than 2 GiB.
        let by = to as i64 - from as i64 - 1;
        let by = i32::try_from(by).expect("code is as short as its source");
        let jump = self.program.code[from].0.jump();
        *jump.expect("only jumps are led") = by;
    }

    pub fn lead_here(&mut self, from: usize) {
        self.lead(from, self.here());
    }

    pub fn number_of(&mut self, name: &Arc<str>) -> u32 {
        let next = self.program.names.len() as u32;
        let number = *self.names.entry(name.clone()).or_insert(next);
        if number == next {
            self.program.names.push(name.clone());
        }
        number
    }

    pub fn constant(&mut self, value: Value) -> u32 {
        let next = self.program.constants.len() as u32;
        if let Value::Text(text) = &value {
            let number = *self.texts.entry(text.clone()).or_insert(next);
            if number != next {
                return number;
            }
        }
        self.program.constants.push(value);
        next
    }

    pub fn push_constant(&mut self, value: Value) {
        let number = self.constant(value);
        self.emit(Op::Constant(number));
    }
}
