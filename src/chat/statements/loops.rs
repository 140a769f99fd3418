//! The grammar of loops.

use std::sync::Arc;

use super::Target;
use crate::chat::fault::Fault;
use crate::chat::lexer::Token;
use crate::chat::parser::{LoopContext, Parsed, Parser};
use crate::chat::program::{Call, MacroInfo, Op};

impl Parser {
    pub(super) fn for_statement(&mut self) -> Parsed {
        let target = self.target(false)?;
        if !self.skip_name("in") {
            return Err(self.unexpected("'in'"));
        }
        let recursive = self.is_recursive();
        let outer = recursive.then(|| self.begin_recursive());
        if !recursive {
            self.tuple(false)?;
        }
        // What is behind else is not in the loop any more, but still in the macro of a recursive
        // one, and no loop is left out of that.
        let loops = recursive.then(|| std::mem::take(&mut self.loops));
        self.loop_over(&target, recursive)?;
        if let Some(loops) = loops {
            self.loops = loops;
        }
        if let Some((begin, iterable)) = outer {
            self.end_recursive(begin, iterable)?;
        }
        Ok(())
    }

    /// Whether this tag says `recursive`.
    fn is_recursive(&self) -> bool {
        let tag = self.tokens[self.at..].iter();
        let mut tag = tag.take_while(|(token, _)| !matches!(token, Token::BlockEnd));
        tag.any(|(token, _)| matches!(token, Token::Name(name) if &**name == "recursive"))
    }

    /// The body of a recursive loop is a macro with one parameter: what it goes over. The code of
    /// the macro begins here; what is gone over first is parsed at the end.
    fn begin_recursive(&mut self) -> (usize, usize) {
        let parameter = self.number_of(&Arc::from(" items"));
        let info = self.new_macro(MacroInfo {
            name: "loop".into(),
            parameters: vec![parameter],
            is_loop: true,
        });
        let begin = self.emit(Op::Macro(info, 0));
        self.emit(Op::Load(parameter));
        let iterable = self.at;
        while !(self.is_name("if") || self.is_name("recursive")) && *self.token() != Token::BlockEnd
        {
            match self.is_operator("(") {
                true => self.skip_balanced(),
                false => self.advance(),
            }
        }
        (begin, iterable)
    }

    fn end_recursive(&mut self, begin: usize, iterable: usize) -> Parsed {
        self.emit(Op::Return);
        self.lead_here(begin);
        let behind = std::mem::replace(&mut self.at, iterable);
        self.tuple(false)?;
        self.at = behind;
        let call = self.call(Call {
            places: 1,
            ..Call::default()
        });
        self.emit(Op::Call(call));
        self.emit(Op::Emit);
        Ok(())
    }

    /// The loop over what lies on the stack.
    fn loop_over(&mut self, target: &Target, recursive: bool) -> Parsed {
        self.emit(Op::Iterate);
        let mut next = self.emit(Op::Next(0));
        self.store(target);
        if self.skip_name("if") {
            self.expression()?;
            let skip = self.emit(Op::JumpIfFalse(0));
            self.lead(skip, next);
            // Who asks the loop how long it is wants it filtered before; else the filter runs as
            // the loop goes on, and sees what the body has changed.
            if self.body_asks_for_loop() {
                self.emit(Op::Collect);
                let back = self.emit(Op::Jump(0));
                self.lead(back, next);
                self.lead_here(next);
                self.emit(Op::EndCollect);
                self.emit(Op::Iterate);
                next = self.emit(Op::Next(0));
                self.store(target);
            }
        }
        self.emit(Op::Enter);
        if recursive && !self.skip_name("recursive") {
            return Err(self.unexpected("'recursive'"));
        }
        self.loops.push(LoopContext {
            next,
            ..LoopContext::default()
        });
        let end = self.block(&["else", "endfor"])?;
        let context = self.loops.pop().expect("it was just pushed");
        let back = self.emit(Op::Jump(0));
        self.lead(back, next);
        self.lead_here(next);
        for leave in context.breaks {
            self.lead_here(leave);
        }
        self.emit(Op::EndLoop);
        if end == "else" {
            let looped = self.emit(Op::JumpIfLooped(0));
            self.scoped("endfor")?;
            self.lead_here(looped);
        }
        Ok(())
    }

    /// Whether the name `loop` stands between here and the end of this loop.
    fn body_asks_for_loop(&self) -> bool {
        let mut depth = 1;
        let mut tokens = self.tokens[self.at..].iter().map(|(token, _)| token);
        let mut last = &Token::End;
        let found = tokens.find(|token| {
            let name = match token {
                Token::Name(name) => &**name,
                _ => "",
            };
            if *last == Token::BlockBegin {
                depth += i32::from(name == "for") - i32::from(name == "endfor");
            }
            last = token;
            name == "loop" || depth == 0
        });
        depth > 0 && found.is_some()
    }

    pub(super) fn leave_loop(&mut self, name: &str) -> Parsed {
        let jump = self.here();
        let Some(context) = self.loops.last_mut() else {
            return Err(Fault::syntax(format!("'{name}' outside of a loop")));
        };
        let next = context.next;
        if name == "break" {
            context.breaks.push(jump);
        }
        self.emit(Op::Jump(0));
        if name == "continue" {
            self.lead(jump, next);
        }
        Ok(())
    }
}
