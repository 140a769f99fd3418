//! The grammar of expressions: tokens to operations, in one pass.

use std::sync::Arc;

use super::fault::Fault;
use super::filters::Filter;
use super::lexer::Token;
use super::parser::{Parsed, Parser};
use super::predicates::Predicate;
use super::program::{Binary, Call, Compare, Op};
use super::value::{Missing, Value};

/// How tightly operators bind, from loose to tight.
const OR: u8 = 0;
const AND: u8 = 1;
const NOT: u8 = 2;
const COMPARE: u8 = 3;
const ADD: u8 = 4;
const CONCAT: u8 = 5;
const MULTIPLY: u8 = 6;

impl Parser {
    /// An expression, or a tuple of them without parentheses.
    pub fn tuple(&mut self, with_condition: bool) -> Parsed {
        let mut count = 0;
        let mut is_tuple = false;
        loop {
            let ends = matches!(self.token(), Token::VariableEnd | Token::BlockEnd)
                || self.is_operator(")")
                || (!with_condition && self.is_name("recursive"));
            if ends {
                break;
            }
            match with_condition {
                true => self.expression()?,
                false => self.binary(OR)?,
            }
            count += 1;
            if !self.skip_operator(",") {
                break;
            }
            is_tuple = true;
        }
        if count == 0 && !is_tuple {
            return Err(self.unexpected("an expression"));
        }
        if is_tuple {
            self.emit(Op::Tuple(count));
        }
        Ok(())
    }

    pub fn expression(&mut self) -> Parsed {
        self.nested(|parser| parser.conditional())
    }

    /// `a if b else c`; what is behind else may be of the same kind.
    fn conditional(&mut self) -> Parsed {
        let mut ends = Vec::new();
        loop {
            let begin = self.here();
            self.binary(OR)?;
            if !self.skip_name("if") {
                break;
            }
            let value = self.program.code.split_off(begin);
            self.binary(OR)?;
            let otherwise = self.emit(Op::JumpIfFalse(0));
            self.program.code.extend(value);
            ends.push(self.emit(Op::Jump(0)));
            self.lead_here(otherwise);
            if !self.skip_name("else") {
                self.push_constant(Value::Undefined(Missing::Nothing(
                    "the inline if-expression evaluated to false and no else section was defined.",
                )));
                break;
            }
        }
        for end in ends {
            self.lead_here(end);
        }
        Ok(())
    }

    /// What binds at least as tightly as `level`.
    fn binary(&mut self, level: u8) -> Parsed {
        self.nested(|parser| {
            if level <= NOT && parser.skip_name("not") {
                parser.binary(NOT)?;
                parser.emit(Op::Not);
            } else {
                parser.unary(true)?;
            }
            parser.operators(level)
        })
    }

    /// The operators behind an operand, as long as they bind at least as tightly as `level`.
    fn operators(&mut self, level: u8) -> Parsed {
        loop {
            let Some((operator, own)) = self.operator() else {
                return Ok(());
            };
            if own < level {
                return Ok(());
            }
            match own {
                OR | AND => {
                    self.advance();
                    let jump = if own == OR {
                        Op::JumpIfTrueKeep(0)
                    } else {
                        Op::JumpIfFalseKeep(0)
                    };
                    let jump = self.emit(jump);
                    self.binary(own + 1)?;
                    self.lead_here(jump);
                }
                COMPARE => self.comparison(operator)?,
                CONCAT => {
                    let mut count = 1;
                    while self.skip_operator("~") {
                        self.binary(MULTIPLY)?;
                        count += 1;
                    }
                    self.emit(Op::Concat(count));
                }
                _ => {
                    self.advance();
                    self.binary(own + 1)?;
                    let binary = match operator {
                        "+" => Binary::Add,
                        "-" => Binary::Subtract,
                        "*" => Binary::Multiply,
                        "/" => Binary::Divide,
                        "//" => Binary::FloorDivide,
                        _ => Binary::Remainder,
                    };
                    self.emit(Op::Binary(binary));
                }
            }
        }
    }

    /// The operator that comes next, and how tightly it binds.
    fn operator(&self) -> Option<(&'static str, u8)> {
        Some(match self.token() {
            Token::Name(name) => match &**name {
                "or" => ("or", OR),
                "and" => ("and", AND),
                "in" => ("in", COMPARE),
                "not" if self.is_not_in() => ("not in", COMPARE),
                _ => return None,
            },
            Token::Operator(operator) => match *operator {
                "==" | "!=" | "<" | "<=" | ">" | ">=" => (*operator, COMPARE),
                "+" | "-" => (*operator, ADD),
                "~" => ("~", CONCAT),
                "*" | "/" | "//" | "%" => (*operator, MULTIPLY),
                _ => return None,
            },
            _ => return None,
        })
    }

    fn is_not_in(&self) -> bool {
        let next = self.tokens.get(self.at + 1);
        self.is_name("not") && matches!(next, Some((Token::Name(name), _)) if &**name == "in")
    }

    fn comparison(&mut self, operator: &str) -> Parsed {
        let compare = match operator {
            "==" => Compare::Equal,
            "!=" => Compare::NotEqual,
            "<" => Compare::Less,
            "<=" => Compare::LessEqual,
            ">" => Compare::Greater,
            ">=" => Compare::GreaterEqual,
            _ => Compare::In,
        };
        self.advance();
        if operator == "not in" {
            self.advance();
        }
        self.binary(ADD)?;
        if matches!(self.operator(), Some((_, COMPARE))) {
            return Err(Fault::syntax("comparisons of comparisons need parentheses"));
        }
        self.emit(Op::Compare(compare));
        if operator == "not in" {
            self.emit(Op::Not);
        }
        Ok(())
    }

    fn unary(&mut self, with_filter: bool) -> Parsed {
        let mut signs = Vec::new();
        while let Token::Operator(sign @ ("-" | "+")) = self.token() {
            signs.push(*sign);
            self.advance();
        }
        self.primary()?;
        self.postfix()?;
        for sign in signs.into_iter().rev() {
            self.emit(if sign == "-" { Op::Negate } else { Op::Plus });
        }
        if with_filter {
            self.filters_and_tests()?;
        }
        Ok(())
    }

    fn primary(&mut self) -> Parsed {
        match self.token().clone() {
            Token::Name(name) => {
                self.advance();
                match &*name {
                    "true" | "True" => self.push_constant(Value::Bool(true)),
                    "false" | "False" => self.push_constant(Value::Bool(false)),
                    "none" | "None" => self.push_constant(Value::None),
                    _ => self.variable(&name),
                }
            }
            Token::Text(first) => {
                self.advance();
                let mut text = first.to_string();
                while let Token::Text(more) = self.token() {
                    text.push_str(more);
                    self.advance();
                }
                self.push_constant(text.into());
            }
            Token::Int(number) => {
                self.advance();
                self.push_constant(Value::Int(number));
            }
            Token::Float(number) => {
                self.advance();
                self.push_constant(Value::Float(number));
            }
            Token::Operator("(") => {
                self.advance();
                if self.skip_operator(")") {
                    self.emit(Op::Tuple(0));
                    return Ok(());
                }
                self.tuple(true)?;
                self.expect_operator(")")?;
            }
            Token::Operator("[") => {
                self.advance();
                let count = self.items("]", |parser| parser.expression())?;
                self.emit(Op::List(count));
            }
            Token::Operator("{") => {
                self.advance();
                let count = self.items("}", |parser| {
                    parser.expression()?;
                    parser.expect_operator(":")?;
                    parser.expression()
                })?;
                self.emit(Op::Dict(count));
            }
            _ => return Err(self.unexpected("an expression")),
        }
        Ok(())
    }

    pub fn variable(&mut self, name: &Arc<str>) {
        let number = self.number_of(name);
        self.emit(Op::Load(number));
    }

    /// Things with commas between them, up to `end`.
    fn items(&mut self, end: &str, item: impl Fn(&mut Self) -> Parsed) -> Parsed<u32> {
        let mut count = 0;
        while !self.skip_operator(end) {
            if count > 0 {
                self.expect_operator(",")?;
                if self.skip_operator(end) {
                    break;
                }
            }
            item(self)?;
            count += 1;
        }
        Ok(count)
    }

    pub fn postfix(&mut self) -> Parsed {
        loop {
            if self.skip_operator(".") {
                match self.token().clone() {
                    Token::Name(name) => {
                        let number = self.number_of(&name);
                        self.advance();
                        self.emit(Op::Member(number));
                    }
                    Token::Int(number) => {
                        self.advance();
                        self.push_constant(Value::Int(number));
                        self.emit(Op::Item);
                    }
                    _ => return Err(self.unexpected("a name or number")),
                }
            } else if self.is_operator("[") {
                self.subscript()?;
            } else if self.is_operator("(") {
                let call = self.arguments()?;
                self.emit(Op::Call(call));
            } else {
                return Ok(());
            }
        }
    }

    fn subscript(&mut self) -> Parsed {
        self.expect_operator("[")?;
        if !self.is_operator(":") {
            self.expression()?;
            if self.skip_operator("]") {
                self.emit(Op::Item);
                return Ok(());
            }
        } else {
            self.push_constant(Value::None);
        }
        self.expect_operator(":")?;
        for is_last in [false, true] {
            if self.is_operator(":") || self.is_operator("]") {
                self.push_constant(Value::None);
            } else {
                self.expression()?;
            }
            if !is_last {
                self.skip_operator(":");
            }
        }
        self.expect_operator("]")?;
        self.emit(Op::Slice);
        Ok(())
    }

    /// The arguments of a call in parentheses, left on the stack.
    pub fn arguments(&mut self) -> Parsed<u32> {
        self.expect_operator("(")?;
        let mut call = Call::default();
        let mut is_first = true;
        while !self.skip_operator(")") {
            if !is_first {
                self.expect_operator(",")?;
                if self.skip_operator(")") {
                    break;
                }
            }
            is_first = false;
            self.argument(&mut call)?;
        }
        Ok(self.call(call))
    }

    fn argument(&mut self, call: &mut Call) -> Parsed {
        let next = self.tokens.get(self.at + 1).map(|(token, _)| token);
        let is_named =
            matches!(self.token(), Token::Name(_)) && matches!(next, Some(Token::Operator("=")));
        if call.list_at.is_none() && self.skip_operator("*") {
            call.list_at = Some(call.names.len());
        } else if is_named {
            let name = self.name()?;
            self.expect_operator("=")?;
            call.names.push(name);
        } else if call.names.is_empty() && call.list_at.is_none() {
            call.places += 1;
        } else {
            return Err(Fault::syntax("invalid syntax for function call expression"));
        }
        self.expression()
    }

    pub fn call(&mut self, call: Call) -> u32 {
        // Most calls look like one of the last few.
        let calls = &mut self.program.calls;
        let recent = calls.len().saturating_sub(16);
        let found = calls[recent..].iter().position(|own| *own == call);
        let number = found.map_or(calls.len(), |at| recent + at);
        if found.is_none() {
            calls.push(call);
        }
        number as u32
    }

    fn filters_and_tests(&mut self) -> Parsed {
        loop {
            if self.is_operator("|") {
                self.filters()?;
            } else if self.skip_name("is") {
                self.test()?;
            } else if self.is_operator("(") {
                let call = self.arguments()?;
                self.emit(Op::Call(call));
            } else {
                return Ok(());
            }
        }
    }

    /// The filters behind a value.
    pub fn filters(&mut self) -> Parsed {
        while self.skip_operator("|") {
            self.filter()?;
        }
        Ok(())
    }

    pub fn filter(&mut self) -> Parsed {
        let name = self.name()?;
        let call = match self.is_operator("(") {
            true => self.arguments()?,
            false => self.call(Call::default()),
        };
        match Filter::named(&name) {
            Some(filter) => self.emit(Op::Filter(filter, call)),
            None => self.fail(format!("No filter named '{name}'.")),
        };
        Ok(())
    }

    fn fail(&mut self, message: String) -> usize {
        let number = self.constant(message.into());
        self.emit(Op::Fail(number))
    }

    fn test(&mut self) -> Parsed {
        let negated = self.skip_name("not");
        let name = self.name()?;
        let has_argument = match self.token() {
            Token::Name(name) => {
                !matches!(&**name, "else" | "or" | "and" | "is" | "if" | "in" | "not")
            }
            Token::Text(_) | Token::Int(_) | Token::Float(_) => true,
            Token::Operator(operator) => matches!(*operator, "[" | "{"),
            _ => false,
        };
        let call = if self.is_operator("(") {
            self.arguments()?
        } else if has_argument {
            self.primary()?;
            self.postfix()?;
            self.call(Call {
                places: 1,
                ..Call::default()
            })
        } else {
            self.call(Call::default())
        };
        match Predicate::named(&name) {
            Some(test) => self.emit(Op::Test(test, call)),
            None => self.fail(format!("No test named '{name}'.")),
        };
        if negated {
            self.emit(Op::Not);
        }
        Ok(())
    }
}
