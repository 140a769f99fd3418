//! The text of a template, cut into tokens.
//!
//! The rules are those of Jinja 3 with `trim_blocks` and `lstrip_blocks`: a newline behind a block
//! or comment goes, and so does white space in front of one that begins its line; `-` takes all
//! white space on its side, `+` keeps it. One newline at the end of the source is not part of it.

use std::sync::Arc;

use super::fault::Fault;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// Text outside of tags.
    Data(Arc<str>),
    BlockBegin,
    BlockEnd,
    VariableBegin,
    VariableEnd,
    Name(Arc<str>),
    Text(Arc<str>),
    Int(i128),
    Float(f64),
    Operator(&'static str),
    End,
}

/// Longest first, so that the first that fits is meant.
const OPERATORS: [&str; 27] = [
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}",
    ">", "<", "=", ".", ":", "|", ",", ";", "!",
];

pub(super) type Tokens = Vec<(Token, u32)>;

/// White space as Python's `str.isspace` sees it.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// The tokens of the source with their lines; a fault comes with its line.
pub(super) fn tokens(source: &str) -> Result<Tokens, (Fault, u32)> {
    let mut source = source.replace("\r\n", "\n").replace('\r', "\n");
    if source.ends_with('\n') {
        source.pop();
    }
    let mut lexer = Lexer {
        rest: &source,
        line: 1,
        starts_line: true,
        tokens: Vec::new(),
    };
    match lexer.run() {
        Ok(()) => Ok(lexer.tokens),
        Err(fault) => Err((fault, lexer.line)),
    }
}

struct Lexer<'a> {
    rest: &'a str,
    line: u32,
    /// Whether what comes begins a line, as far as tags before it tell.
    starts_line: bool,
    tokens: Tokens,
}

impl<'a> Lexer<'a> {
    fn run(&mut self) -> Result<(), Fault> {
        while let Some(at) = self.next_tag() {
            let (text, tag) = (&self.rest[..at], &self.rest[at..]);
            let kind = tag.as_bytes()[1];
            let sign = tag.as_bytes().get(2).copied();
            let text = match sign {
                Some(b'-') => text.trim_end_matches(is_space),
                Some(b'+') => text,
                _ if kind == b'{' => text,
                _ => self.without_indent(text),
            };
            self.data(text);
            let signed = usize::from(matches!(sign, Some(b'-' | b'+')));
            self.skip(at + 2 + signed);
            match kind {
                b'#' => self.comment()?,
                b'{' => {
                    self.push(Token::VariableBegin);
                    self.tag(Token::VariableEnd, "}}")?;
                }
                _ => {
                    self.push(Token::BlockBegin);
                    self.tag(Token::BlockEnd, "%}")?;
                }
            }
        }
        let rest = self.rest;
        self.data(rest);
        self.skip(rest.len());
        self.push(Token::End);
        Ok(())
    }

    /// Where the next tag begins.
    fn next_tag(&self) -> Option<usize> {
        let bytes = self.rest.as_bytes();
        let pairs = bytes.windows(2);
        pairs
            .into_iter()
            .position(|pair| pair[0] == b'{' && matches!(pair[1], b'%' | b'{' | b'#'))
    }

    /// The text in front of a block, without the white space that only indents the block.
    fn without_indent<'t>(&self, text: &'t str) -> &'t str {
        let line = text.rfind('\n').map_or(0, |at| at + 1);
        let begins = line > 0 || self.starts_line;
        if begins && text[line..].chars().all(is_space) {
            &text[..line]
        } else {
            text
        }
    }

    fn data(&mut self, text: &str) {
        if !text.is_empty() {
            self.push(Token::Data(text.into()));
        }
    }

    fn push(&mut self, token: Token) {
        self.tokens.push((token, self.line));
    }

    /// Goes on `bytes` further.
    fn skip(&mut self, bytes: usize) {
        let (gone, rest) = self.rest.split_at(bytes);
        let newlines = gone.bytes().filter(|&byte| byte == b'\n').count();
        self.line += u32::try_from(newlines).unwrap_or(u32::MAX);
        if !gone.is_empty() {
            self.starts_line = gone.ends_with('\n');
        }
        self.rest = rest;
    }

    /// The length of the end of a tag at `at`, with the white space that goes with it.
    fn end_length(text: &str, end: &str, trims_newline: bool) -> Option<usize> {
        if let Some(rest) = text.strip_prefix('-')
            && let Some(rest) = rest.strip_prefix(end)
        {
            let kept = rest.trim_start_matches(is_space).len();
            return Some(text.len() - kept);
        }
        if let Some(rest) = text.strip_prefix('+')
            && rest.starts_with(end)
            && trims_newline
        {
            return Some(1 + end.len());
        }
        let rest = text.strip_prefix(end)?;
        let newline = usize::from(trims_newline && rest.starts_with('\n'));
        Some(end.len() + newline)
    }

    fn comment(&mut self) -> Result<(), Fault> {
        let end = self.rest.find("#}");
        let end = end.ok_or_else(|| Fault::syntax("Missing end of comment tag"))?;
        let signed = end > 0 && matches!(self.rest.as_bytes()[end - 1], b'-' | b'+');
        let end = end - usize::from(signed);
        let length = Self::end_length(&self.rest[end..], "#}", true).expect("it was found");
        self.skip(end + length);
        Ok(())
    }

    /// The tokens of a tag up to its end.
    fn tag(&mut self, end: Token, mark: &str) -> Result<(), Fault> {
        let mut open = Vec::new();
        loop {
            let blank = self.rest.len() - self.rest.trim_start_matches(is_space).len();
            self.skip(blank);
            if open.is_empty()
                && let Some(length) = Self::end_length(self.rest, mark, mark == "%}")
            {
                self.push(end);
                self.skip(length);
                return Ok(());
            }
            let Some(first) = self.rest.chars().next() else {
                return Err(Fault::syntax("Unexpected end of template."));
            };
            if first.is_ascii_digit() {
                self.number()?;
            } else if first == '\'' || first == '"' {
                self.string(first)?;
            } else if first == '_' || first.is_alphabetic() {
                let name = |c: char| c == '_' || c.is_alphanumeric();
                let length = self.rest.find(|c| !name(c)).unwrap_or(self.rest.len());
                self.push(Token::Name(self.rest[..length].into()));
                self.skip(length);
            } else {
                self.operator(first, &mut open)?;
            }
        }
    }

    fn operator(&mut self, first: char, open: &mut Vec<&'static str>) -> Result<(), Fault> {
        let found = OPERATORS.iter().find(|op| self.rest.starts_with(**op));
        let operator = match found {
            Some(&operator) if operator != "!" => operator,
            _ => return Err(Fault::syntax(format!("unexpected char {first:?}"))),
        };
        match operator {
            "(" => open.push(")"),
            "[" => open.push("]"),
            "{" => open.push("}"),
            ")" | "]" | "}" => match open.pop() {
                Some(expected) if expected == operator => {}
                Some(expected) => {
                    let message = format!("unexpected '{operator}', expected '{expected}'");
                    return Err(Fault::syntax(message));
                }
                None => return Err(Fault::syntax(format!("unexpected '{operator}'"))),
            },
            _ => {}
        }
        self.push(Token::Operator(operator));
        self.skip(operator.len());
        Ok(())
    }

    fn number(&mut self) -> Result<(), Fault> {
        let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
        let whole = digits(self.rest);
        // A number behind a dot is a place in a list, whatever follows it.
        let is_place = matches!(self.tokens.last(), Some((Token::Operator("."), _)));
        let fraction = self.rest[whole..].strip_prefix('.');
        let behind = fraction.filter(|_| !is_place).map_or(0, digits);
        let length = if behind > 0 {
            whole + 1 + behind
        } else {
            whole
        };
        let text = &self.rest[..length];
        let token = match behind {
            0 => text.parse().map(Token::Int).ok(),
            _ => text.parse().map(Token::Float).ok(),
        };
        let long = || Fault::syntax("expected a number of at most 38 digits");
        self.push(token.ok_or_else(long)?);
        self.skip(length);
        Ok(())
    }

    fn string(&mut self, quote: char) -> Result<(), Fault> {
        let mut escaped = false;
        let end = self.rest[1..].char_indices().find(|&(_, c)| {
            let ends = c == quote && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        let (end, _) = end.ok_or_else(|| Fault::syntax(format!("unexpected char {quote:?}")))?;
        let text = unescape(&self.rest[1..=end])?;
        self.push(Token::Text(text.into()));
        self.skip(end + 2);
        Ok(())
    }
}

/// The text that a literal stands for.
fn unescape(literal: &str) -> Result<String, Fault> {
    let mut text = String::with_capacity(literal.len());
    let mut rest = literal;
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let Some(kind) = rest.chars().next() else {
            return Err(Fault::syntax("\\ at end of string"));
        };
        let plain = match kind {
            'n' => Some('\n'),
            't' => Some('\t'),
            'r' => Some('\r'),
            '\\' | '\'' | '"' => Some(kind),
            _ => None,
        };
        let digits = match kind {
            'x' => 2,
            'u' => 4,
            _ => 0,
        };
        let mut used = kind.len_utf8();
        if let Some(c) = plain {
            text.push(c);
        } else if digits > 0 {
            used += digits;
            let code = rest
                .get(1..used)
                .and_then(|code| u32::from_str_radix(code, 16).ok());
            let code = code.ok_or_else(|| Fault::syntax(format!("truncated \\{kind} escape")))?;
            // Halves of surrogate pairs are no text.
            text.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
        } else if matches!(kind, 'a' | 'b' | 'f' | 'v' | 'U' | 'N' | '0'..='7') {
            return Err(Fault::syntax(format!(
                "the escape \\{kind} is not supported"
            )));
        } else if kind != '\n' {
            text.push('\\');
            text.push(kind);
        }
        rest = &rest[used..];
    }
    text.push_str(rest);
    Ok(text)
}
