//! The grammar of macros, and of blocks that are handed to them.

use std::sync::Arc;

use crate::chat::fault::Fault;
use crate::chat::lexer::Token;
use crate::chat::parser::{Parsed, Parser};
use crate::chat::program::{MacroInfo, Op};

impl Parser {
    pub(super) fn new_macro(&mut self, info: MacroInfo) -> u32 {
        self.program.macros.push(info);
        (self.program.macros.len() - 1) as u32
    }

    /// Parameters, defaults and body of a macro, which is left on the stack.
    fn macro_of(&mut self, name: Arc<str>, body: impl FnOnce(&mut Self) -> Parsed) -> Parsed {
        let info = self.new_macro(MacroInfo {
            name,
            parameters: Vec::new(),
            is_loop: false,
        });
        let begin = self.emit(Op::Macro(info, 0));
        // A loop is not left out of a macro.
        let loops = std::mem::take(&mut self.loops);
        let parameters = match self.skip_operator("(") {
            true => self.parameters()?,
            false => Vec::new(),
        };
        self.program.macros[info as usize].parameters = parameters;
        body(self)?;
        self.loops = loops;
        self.emit(Op::Return);
        self.lead_here(begin);
        Ok(())
    }

    fn parameters(&mut self) -> Parsed<Vec<u32>> {
        let mut parameters = Vec::new();
        let mut defaults = false;
        while !self.skip_operator(")") {
            if !parameters.is_empty() {
                self.expect_operator(",")?;
            }
            let name = self.name()?;
            let parameter = self.number_of(&name);
            if self.skip_operator("=") {
                defaults = true;
                let given = self.emit(Op::IfMissing(parameter, 0));
                self.expression()?;
                self.emit(Op::Store(parameter));
                self.lead_here(given);
            } else if defaults {
                return Err(Fault::syntax(
                    "non-default argument follows default argument",
                ));
            }
            parameters.push(parameter);
        }
        Ok(parameters)
    }

    pub(super) fn macro_statement(&mut self) -> Parsed {
        let name = self.name()?;
        if !self.is_operator("(") {
            return Err(self.unexpected("'('"));
        }
        let number = self.number_of(&name);
        self.macro_of(name, |parser| parser.block(&["endmacro"]).map(|_| ()))?;
        self.emit(Op::Store(number));
        Ok(())
    }

    /// `{% call(x) f(y) %}`: the body is a macro that f gets as `caller`.
    pub(super) fn call_statement(&mut self) -> Parsed {
        // What is called stands between parameters and body, but its code comes first.
        let begin = self.at;
        if self.is_operator("(") {
            self.skip_balanced();
        }
        let name = self.name()?;
        self.variable(&name);
        self.postfix()?;
        let Some((Op::Call(call), _)) = self.program.code.pop() else {
            return Err(Fault::syntax("expected call"));
        };
        let tag_end = std::mem::replace(&mut self.at, begin);
        self.macro_of("caller".into(), |parser| {
            parser.at = tag_end;
            parser.block(&["endcall"]).map(|_| ())
        })?;
        let mut call = self.program.calls[call as usize].clone();
        if call.list_at.is_some() {
            return Err(Fault::syntax("* in a call block is not supported"));
        }
        call.names.push("caller".into());
        let call = self.call(call);
        self.emit(Op::Call(call));
        self.emit(Op::Emit);
        Ok(())
    }

    /// Goes behind the parenthesis that closes the one here; the lexer has matched them.
    pub(super) fn skip_balanced(&mut self) {
        let mut depth = 0;
        loop {
            match self.token() {
                Token::Operator("(") => depth += 1,
                Token::Operator(")") => depth -= 1,
                _ => {}
            }
            self.advance();
            if depth == 0 {
                return;
            }
        }
    }
}
