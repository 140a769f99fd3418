//! The grammar of tags: everything but expressions.

mod loops;
mod macros;

use super::fault::Fault;
use super::lexer::{Token, Tokens};
use super::parser::{Parsed, Parser};
use super::program::{Op, Program};

/// What is assigned to.
enum Target {
    Name(u32),
    /// A member of a namespace.
    Member(u32, u32),
    Tuple(Vec<Target>),
}

/// Compiles the tokens; a fault comes with its line.
pub(super) fn compile(tokens: Tokens) -> Result<Program, (Fault, u32)> {
    let mut parser = Parser::new(tokens);
    let result = parser.body(&[]).and_then(|_| match parser.token() {
        Token::End => Ok(()),
        _ => Err(parser.unexpected("the end of the template")),
    });
    match result {
        Ok(()) => {
            parser.emit(Op::Return);
            Ok(parser.program)
        }
        Err(fault) => Err((fault, parser.line())),
    }
}

impl Parser {
    /// Text and tags up to a tag that is one of `ends`, whose name it answers; without ends, all.
    fn body(&mut self, ends: &[&str]) -> Parsed<String> {
        self.nested(|parser| {
            loop {
                match parser.token().clone() {
                    Token::Data(text) => {
                        let number = parser.constant(text.as_ref().into());
                        parser.emit(Op::Write(number));
                        parser.advance();
                    }
                    Token::VariableBegin => {
                        parser.advance();
                        parser.tuple(true)?;
                        parser.emit(Op::Emit);
                        parser.expect(Token::VariableEnd, "'}}'")?;
                    }
                    Token::BlockBegin => {
                        parser.advance();
                        let end = ends.iter().find(|end| parser.is_name(end));
                        if let Some(end) = end {
                            parser.advance();
                            return Ok((*end).into());
                        }
                        parser.statement(ends)?;
                        parser.expect(Token::BlockEnd, "'%}'")?;
                    }
                    Token::End if ends.is_empty() => return Ok(String::new()),
                    Token::End => {
                        let message = format!(
                            "Unexpected end of template. It was looking for: {}.",
                            ends.join(", ")
                        );
                        return Err(Fault::syntax(message));
                    }
                    _ => return Err(parser.unexpected("text or a tag")),
                }
            }
        })
    }

    /// The end of a tag, and what is between it and one of `ends`.
    fn block(&mut self, ends: &[&str]) -> Parsed<String> {
        self.skip_operator(":");
        self.expect(Token::BlockEnd, "'%}'")?;
        self.body(ends)
    }

    fn statement(&mut self, ends: &[&str]) -> Parsed {
        let name = self.name()?;
        match &*name {
            "if" => self.if_statement(),
            "for" => self.for_statement(),
            "set" => self.set_statement(),
            "macro" => self.macro_statement(),
            "call" => self.call_statement(),
            "filter" => self.filter_statement(),
            "generation" => self.scoped("endgeneration"),
            "break" | "continue" => self.leave_loop(&name),
            "include" | "import" | "from" | "extends" => Err(Fault::syntax(format!(
                "'{name}': a chat template cannot load others"
            ))),
            _ => {
                let wanted = match ends.is_empty() {
                    true => String::new(),
                    false => format!(" It was looking for: {}.", ends.join(", ")),
                };
                Err(Fault::syntax(format!(
                    "Encountered unknown tag '{name}'.{wanted}"
                )))
            }
        }
    }

    fn if_statement(&mut self) -> Parsed {
        let mut ends = Vec::new();
        loop {
            self.tuple(false)?;
            let otherwise = self.emit(Op::JumpIfFalse(0));
            let end = self.block(&["elif", "else", "endif"])?;
            if end != "endif" {
                ends.push(self.emit(Op::Jump(0)));
            }
            self.lead_here(otherwise);
            if end == "elif" {
                continue;
            }
            if end == "else" {
                self.block(&["endif"])?;
            }
            break;
        }
        for end in ends {
            self.lead_here(end);
        }
        Ok(())
    }

    /// What is between this tag and `end`, in a scope of its own.
    fn scoped(&mut self, end: &str) -> Parsed {
        self.emit(Op::PushScope);
        self.block(&[end])?;
        self.emit(Op::PopScope);
        Ok(())
    }

    /// What is between this tag and `end`, as a text on the stack.
    fn captured(&mut self, end: &str) -> Parsed {
        self.emit(Op::PushCapture);
        self.scoped(end)?;
        self.emit(Op::PopCapture);
        Ok(())
    }

    /// One thing to assign to.
    fn target_item(&mut self, with_member: bool) -> Parsed<Target> {
        if self.skip_operator("(") {
            let target = self.nested(|parser| parser.target(with_member))?;
            self.expect_operator(")")?;
            return Ok(target);
        }
        let name = self.name()?;
        if matches!(
            &*name,
            "true" | "false" | "none" | "True" | "False" | "None"
        ) {
            return Err(Fault::syntax(format!("can't assign to '{name}'")));
        }
        let number = self.number_of(&name);
        if with_member && self.skip_operator(".") {
            let member = self.name()?;
            let member = self.number_of(&member);
            return Ok(Target::Member(number, member));
        }
        Ok(Target::Name(number))
    }

    fn target(&mut self, with_member: bool) -> Parsed<Target> {
        let first = self.target_item(with_member)?;
        if !self.is_operator(",") {
            return Ok(first);
        }
        let mut items = vec![first];
        while self.skip_operator(",") {
            if self.is_name("in") || self.is_operator("=") || self.is_operator(")") {
                break;
            }
            items.push(self.target_item(with_member)?);
        }
        Ok(Target::Tuple(items))
    }

    /// Pops into the target.
    fn store(&mut self, target: &Target) {
        match target {
            Target::Name(name) => {
                self.emit(Op::Store(*name));
            }
            Target::Member(name, member) => {
                self.emit(Op::StoreMember(*name, *member));
            }
            Target::Tuple(items) => {
                self.emit(Op::Unpack(items.len() as u32));
                for item in items {
                    self.store(item);
                }
            }
        }
    }

    fn set_statement(&mut self) -> Parsed {
        let target = self.target(true)?;
        if self.skip_operator("=") {
            self.tuple(true)?;
        } else {
            self.filtered_block("endset", |parser| parser.filters())?;
        }
        self.store(&target);
        Ok(())
    }

    fn filter_statement(&mut self) -> Parsed {
        self.filtered_block("endfilter", |parser| {
            parser.filter()?;
            parser.filters()
        })?;
        self.emit(Op::Emit);
        Ok(())
    }

    /// A text up to `end`, with the filters of this tag behind it: they are parsed last.
    fn filtered_block(&mut self, end: &str, filters: impl FnOnce(&mut Self) -> Parsed) -> Parsed {
        let begin = self.at;
        while !matches!(self.token(), Token::BlockEnd | Token::End) {
            self.advance();
        }
        let tag_end = self.at;
        self.captured(end)?;
        let behind = std::mem::replace(&mut self.at, begin);
        filters(self)?;
        if self.at != tag_end {
            return Err(self.unexpected("'%}'"));
        }
        self.at = behind;
        Ok(())
    }
}
