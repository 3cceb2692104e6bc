use std::collections::BTreeMap;

use super::check::{self, Term};
use super::expression::{Arithmetic, Comparison, Containment, Literal, Predicate, Step, power};
use super::fault::{Fault, closest};
use super::token::{Lexer, Spanned, Token, out_of_range};
use super::{DEPTH_MAX, TEXT_BYTES_MAX};
use crate::model::{Schema, Value, time};

/// Reads an expression by operator precedence and checks each part as soon as it is whole: there is no untyped tree.
///
/// Source: Pratt, "Top Down Operator Precedence" (1973).
pub(super) struct Parser<'a> {
    lexer: Lexer<'a>,
    next: Spanned,
    schema: &'a Schema,
    parameters: &'a BTreeMap<String, Value>,
    depth: usize,
}

/// What may stand between two terms, or after one.
#[derive(Clone, Copy)]
enum Infix {
    Or,
    And,
    Compare(Comparison),
    Arithmetic(Arithmetic),
    In,
    NotIn,
    Like,
    /// `=~`, or `!~`.
    Regex(bool),
    Is,
}

impl Infix {
    const fn power(self) -> u8 {
        match self {
            Self::Or => power::OR,
            Self::And => power::AND,
            Self::Compare(comparison) if comparison.is_equality() => power::EQUALITY,
            Self::Compare(_) => power::RELATION,
            Self::Arithmetic(arithmetic) => arithmetic.power(),
            Self::In | Self::NotIn => power::IN,
            Self::Like | Self::Regex(_) | Self::Is => power::ATOM,
        }
    }
}

/// Functions that the language has and this version does not.
const FUNCTIONS_LATER: &[&str] =
    &["element_filter", "match_all", "match_any", "match_exact", "match_least", "match_most"];

/// Functions of a field's terms, and the name of their third argument.
const TEXT_FUNCTIONS: [(&str, &str); 3] =
    [("text_match", "minimum_should_match"), ("phrase_match", "slop"), ("text_match_fuzzy", "distance")];

const CONTAINMENTS: [Containment; 3] = [Containment::One, Containment::All, Containment::Any];

/// The condition that `text` describes.
pub(super) fn parse(text: &str, schema: &Schema, parameters: &BTreeMap<String, Value>) -> Result<Predicate, Fault> {
    check::condition(parse_term(text, schema, parameters)?, "as the whole filter")
}

/// The condition or the value that `text` describes.
pub(super) fn parse_term(text: &str, schema: &Schema, parameters: &BTreeMap<String, Value>) -> Result<Term, Fault> {
    if text.len() > TEXT_BYTES_MAX {
        let message = format!("the expression has {} bytes, expected at most {TEXT_BYTES_MAX}", text.len());
        return Err(Fault::new(0, message));
    }
    let mut lexer = Lexer::new(text);
    let next = lexer.next()?;
    let mut parser = Parser { lexer, next, schema, parameters, depth: 0 };
    let term = parser.expression(0)?;
    if parser.next.token != Token::End {
        return Err(parser.unexpected("an operator or the end"));
    }
    Ok(term)
}

impl Parser<'_> {
    /// A term whose operators all bind at least as tight as `power_min`.
    fn expression(&mut self, power_min: u8) -> Result<Term, Fault> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(check::too_deep(self.next.at));
        }
        let mut left = self.prefix()?;
        while let Some(infix) = self.infix()? {
            if infix.power() < power_min {
                break;
            }
            let sign = self.advance()?;
            left = self.combined(infix, &sign, left)?;
        }
        self.depth -= 1;
        Ok(left)
    }

    /// `left` with what follows `sign`.
    fn combined(&mut self, infix: Infix, sign: &Spanned, left: Term) -> Result<Term, Fault> {
        let tighter = infix.power() + 1;
        match infix {
            Infix::Or | Infix::And => {
                let mut terms = vec![left, self.expression(tighter)?];
                while self.next.token == sign.token {
                    self.advance()?;
                    terms.push(self.expression(tighter)?);
                }
                check::join(matches!(infix, Infix::Or), terms)
            }
            Infix::Compare(comparison) => {
                let middle = self.expression(tighter)?;
                if comparison.is_equality() {
                    return check::compare(comparison, sign.at, left, middle);
                }
                // A second relation makes a range of it.
                let Some(Infix::Compare(second)) = self.infix()? else {
                    return check::compare(comparison, sign.at, left, middle);
                };
                if second.is_equality() {
                    return check::compare(comparison, sign.at, left, middle);
                }
                if is_ascending(comparison) != is_ascending(second) {
                    let signs = if is_ascending(comparison) { "`<` or `<=`" } else { "`>` or `>=`" };
                    return Err(self.unexpected(&format!("{signs}: a range runs in one direction")));
                }
                let second_sign = self.advance()?;
                let right = self.expression(tighter)?;
                let low = check::compare(comparison, sign.at, left, middle.clone())?;
                check::join(false, vec![low, check::compare(second, second_sign.at, middle, right)?])
            }
            Infix::Arithmetic(arithmetic) => {
                let right = self.expression(tighter)?;
                check::arithmetic(arithmetic, sign.at, left, right)
            }
            Infix::In => {
                let list = self.expression(tighter)?;
                check::within(left, list)
            }
            Infix::NotIn => {
                self.expect("in", "`in` after `not`")?;
                let list = self.expression(tighter)?;
                let at = left.at;
                check::not(at, check::within(left, list)?)
            }
            Infix::Like => {
                let pattern = self.expression(tighter)?;
                check::like(left, pattern, false)
            }
            Infix::Regex(wanted) => {
                let pattern = self.expression(tighter)?;
                let at = left.at;
                let matched = check::like(left, pattern, true)?;
                if wanted { Ok(matched) } else { check::not(at, matched) }
            }
            Infix::Is => {
                let negated = self.next.token == Token::Sign("not");
                if negated {
                    self.advance()?;
                }
                self.expect("null", if negated { "`null`" } else { "`null` or `not null` after `is`" })?;
                let at = left.at;
                let null = check::is_null(left)?;
                if negated { check::not(at, null) } else { Ok(null) }
            }
        }
    }

    /// A term with the signs before it.
    fn prefix(&mut self) -> Result<Term, Fault> {
        let Token::Sign(sign) = self.next.token else { return self.atom() };
        let at = self.next.at;
        match sign {
            "-" => {
                self.advance()?;
                let number = self.next.clone();
                if let Token::Int(magnitude) = number.token
                    && magnitude > i64::MAX as u64
                {
                    // Only with its sign does the smallest integer fit.
                    self.advance()?;
                    return match 0i64.checked_sub_unsigned(magnitude) {
                        Some(int) if self.next.token != Token::Sign("**") => Ok(Term::literal(at, Literal::Int(int))),
                        _ => Err(out_of_range(number.written.trim_matches('`'), number.at)),
                    };
                }
                let term = self.expression(power::UNARY)?;
                check::negative(at, term)
            }
            "+" => {
                self.advance()?;
                let term = self.expression(power::UNARY)?;
                check::positive(term)
            }
            "~" => {
                self.advance()?;
                let term = self.expression(power::UNARY)?;
                check::complement(at, term)
            }
            "not" => {
                self.advance()?;
                let term = self.expression(power::UNARY)?;
                check::not(at, term)
            }
            "exists" => {
                self.advance()?;
                let term = self.atom()?;
                check::exists(at, term)
            }
            _ => self.atom(),
        }
    }

    fn atom(&mut self) -> Result<Term, Fault> {
        let Spanned { token, at, written } = self.advance()?;
        match token {
            Token::Int(magnitude) => match i64::try_from(magnitude) {
                Ok(int) => Ok(Term::literal(at, Literal::Int(int))),
                Err(_) => Err(out_of_range(written.trim_matches('`'), at)),
            },
            Token::Float(float) => Ok(Term::literal(at, Literal::Float(float))),
            Token::Text(text) => Ok(Term::literal(at, Literal::Text(text))),
            Token::Sign("true") => Ok(Term::literal(at, Literal::Bool(true))),
            Token::Sign("false") => Ok(Term::literal(at, Literal::Bool(false))),
            Token::Sign("null") => {
                Err(Fault::new(at, format!("found {written}, which is no value: expected `is null` after a field")))
            }
            Token::Sign("(") => {
                let term = self.expression(0)?;
                self.expect(")", &format!("`)` for the bracket at position {at}"))?;
                Ok(Term { at, ..term })
            }
            Token::Sign("[") => {
                let values = self.sequence("]", at)?;
                check::list(at, values)
            }
            Token::Sign("{") => self.parameter(at),
            Token::Meta => {
                let term = check::meta(self.schema, at)?;
                if self.next.token != Token::Sign("[") {
                    return Err(self.unexpected("a key after `$meta`, as in `$meta[\"key\"]`"));
                }
                self.steps(term)
            }
            Token::Name(name) => match self.next.token {
                Token::Sign("(") => self.call(&name, at),
                Token::Text(_) if ["iso", "ISO", "interval", "INTERVAL"].contains(&name.as_str()) => {
                    self.instant(&name)
                }
                _ => {
                    if let (Token::Name(next), Some(hint)) = (&self.next.token, spelling(&name))
                        && !["is", "IS"].contains(&next.as_str())
                    {
                        return Err(Fault::new(at, format!("found {written}: {hint}")));
                    }
                    let term = check::name(self.schema, at, &name)?;
                    self.steps(term)
                }
            },
            Token::Sign(_) | Token::End => {
                Err(Fault::new(at, format!("found {written}, expected a value, a field or `(`")))
            }
        }
    }

    /// The text after `iso` or `interval`, as the microseconds that timestamps are kept in.
    fn instant(&mut self, word: &str) -> Result<Term, Fault> {
        let Spanned { token, at, written } = self.advance()?;
        let Token::Text(text) = token else { unreachable!("a text comes next") };
        let is_instant = word.eq_ignore_ascii_case("iso");
        let micros = if is_instant { time::parse(&text) } else { time::parse_duration(&text) };
        let expected = if is_instant {
            "an instant of RFC 3339 with its offset or `Z`, such as `2024-05-01T12:30:00Z`"
        } else {
            "a duration of weeks, days, hours, minutes and seconds, such as `P1DT12H`"
        };
        let micros = micros.ok_or_else(|| Fault::new(at, format!("found {written}, expected {expected}")))?;
        Ok(Term::literal(at, Literal::Int(micros)))
    }

    /// `["key"]` and `[0]` after a field, as many as there are.
    fn steps(&mut self, mut term: Term) -> Result<Term, Fault> {
        while self.next.token == Token::Sign("[") {
            let bracket = self.advance()?;
            let step = match &self.next.token {
                Token::Text(key) => Step::Key(key.clone()),
                Token::Int(index) => Step::Index(*index),
                Token::Name(_) => return Err(Fault::unsupported(self.next.at, "a field of an array of structs")),
                _ => return Err(self.unexpected("a key in quotes or an index")),
            };
            self.advance()?;
            self.expect("]", "`]`")?;
            term = check::step(term, bracket.at, step)?;
        }
        Ok(term)
    }

    /// A function, from its bracket.
    fn call(&mut self, name: &str, at: usize) -> Result<Term, Fault> {
        let lower = name.to_ascii_lowercase();
        let known = |candidate: &str| candidate == lower && (name == lower || name == lower.to_ascii_uppercase());
        let containment = CONTAINMENTS.into_iter().find(|one| known(one.name()) || known(one.array_name()));
        if containment.is_some() || known("array_length") || known("random_sample") {
            let bracket = self.advance()?;
            let arguments = self.sequence(")", bracket.at)?;
            return match containment {
                Some(containment) => check::contains(containment, at, arguments),
                None if lower == "random_sample" => check::sample(self.schema, at, arguments),
                None => check::length(at, arguments),
            };
        }
        if let Some((_, option)) = TEXT_FUNCTIONS.into_iter().find(|(function, _)| known(function)) {
            return self.text_call(&lower, option, at);
        }
        if FUNCTIONS_LATER.iter().any(|later| known(later)) || (known(&lower) && lower.starts_with("st_")) {
            return Err(Fault::unsupported(at, &format!("`{name}`")));
        }
        let names = CONTAINMENTS.iter().flat_map(|one| [one.name(), one.array_name()]);
        let names = names.chain(TEXT_FUNCTIONS.into_iter().map(|(name, _)| name));
        let names = names.chain(["array_length", "random_sample"]).chain(FUNCTIONS_LATER.iter().copied());
        let hint = match closest(name, names) {
            Some(near) if near == lower => format!(": {}", CASES),
            Some(near) => format!(": did you mean `{near}`?"),
            None => String::new(),
        };
        Err(Fault::new(at, format!("found `{name}`, which is no function{hint}")))
    }

    /// `(field, "text", option=number)`, with the function's name at `at`; the name of the option may be left out.
    fn text_call(&mut self, function: &str, option: &'static str, at: usize) -> Result<Term, Fault> {
        let bracket = self.advance()?;
        let field = self.expression(0)?;
        self.expect(",", &format!("`,` and a text as the second argument of `{function}`"))?;
        let text = self.expression(0)?;
        let mut number = None;
        if self.next.token == Token::Sign(",") {
            self.advance()?;
            if matches!(&self.next.token, Token::Name(name) if name == option) {
                self.advance()?;
                self.expect("=", &format!("`=` and a number after `{option}`"))?;
            }
            number = Some(self.expression(0)?);
        }
        self.expect(")", &format!("`)` for the bracket at position {}", bracket.at))?;
        check::text(self.schema, function, at, field, text, number)
    }

    /// Terms between commas up to `close`, for the bracket at `at`. A comma may follow the last.
    fn sequence(&mut self, close: &'static str, at: usize) -> Result<Vec<Term>, Fault> {
        let mut terms = vec![];
        loop {
            if self.next.token == Token::Sign(close) {
                self.advance()?;
                return Ok(terms);
            }
            terms.push(self.expression(0)?);
            if self.next.token == Token::Sign(",") {
                self.advance()?;
            } else if self.next.token != Token::Sign(close) {
                return Err(self.unexpected(&format!("`,` or `{close}` for the bracket at position {at}")));
            }
        }
    }

    /// `{name}`, from its name.
    fn parameter(&mut self, at: usize) -> Result<Term, Fault> {
        let name = match &self.next.token {
            Token::Name(name) => name.clone(),
            _ => return Err(self.unexpected("the name of a parameter")),
        };
        let name_at = self.next.at;
        self.advance()?;
        self.expect("}", "`}`")?;
        match self.parameters.get(&name) {
            Some(value) => check::parameter(at, &name, value),
            None => {
                let hint = match closest(&name, self.parameters.keys().map(String::as_str)) {
                    Some(near) => format!(": did you mean `{near}`?"),
                    None => String::new(),
                };
                Err(Fault::new(name_at, format!("found parameter `{name}`, which was given no value{hint}")))
            }
        }
    }

    /// The operator that comes next; `None` when something else does.
    fn infix(&self) -> Result<Option<Infix>, Fault> {
        use {Arithmetic as A, Comparison as C};
        Ok(Some(match &self.next.token {
            Token::Sign(sign) => match *sign {
                "or" => Infix::Or,
                "and" => Infix::And,
                "|" => Infix::Arithmetic(A::Or),
                "^" => Infix::Arithmetic(A::Xor),
                "&" => Infix::Arithmetic(A::And),
                "==" => Infix::Compare(C::Eq),
                "!=" => Infix::Compare(C::Ne),
                "<" => Infix::Compare(C::Lt),
                "<=" => Infix::Compare(C::Le),
                ">" => Infix::Compare(C::Gt),
                ">=" => Infix::Compare(C::Ge),
                "in" => Infix::In,
                "not" => Infix::NotIn,
                "<<" => Infix::Arithmetic(A::Shl),
                ">>" => Infix::Arithmetic(A::Shr),
                "+" => Infix::Arithmetic(A::Add),
                "-" => Infix::Arithmetic(A::Sub),
                "*" => Infix::Arithmetic(A::Mul),
                "/" => Infix::Arithmetic(A::Div),
                "%" => Infix::Arithmetic(A::Rem),
                "**" => Infix::Arithmetic(A::Pow),
                "=" => return Err(Fault::new(self.next.at, "found `=`, expected `==`")),
                "like" => Infix::Like,
                "=~" => Infix::Regex(true),
                "!~" => Infix::Regex(false),
                _ => return Ok(None),
            },
            Token::Name(name) if name == "is" || name == "IS" => Infix::Is,
            Token::Name(name) => {
                let hint = spelling(name).map_or_else(String::new, |hint| format!(": {hint}"));
                return Err(self.unexpected(&format!("an operator or the end{hint}")));
            }
            _ => return Ok(None),
        }))
    }

    fn advance(&mut self) -> Result<Spanned, Fault> {
        let next = self.lexer.next()?;
        Ok(std::mem::replace(&mut self.next, next))
    }

    fn expect(&mut self, sign: &'static str, expected: &str) -> Result<(), Fault> {
        if self.next.token != Token::Sign(sign) {
            return Err(self.unexpected(expected));
        }
        self.advance().map(|_| ())
    }

    fn unexpected(&self, expected: &str) -> Fault {
        Fault::new(self.next.at, format!("found {}, expected {expected}", self.next.written))
    }
}

const fn is_ascending(comparison: Comparison) -> bool {
    matches!(comparison, Comparison::Lt | Comparison::Le)
}

const CASES: &str = "keywords and functions are written all lower or all upper case";

/// A hint for a name that is a keyword but for its case.
fn spelling(name: &str) -> Option<&'static str> {
    ["and", "or", "not", "in", "is", "like", "exists", "null"]
        .iter()
        .any(|keyword| keyword.eq_ignore_ascii_case(name))
        .then_some(CASES)
}

/// The names of the template parameters in `text`.
pub(super) fn parameters(text: &str) -> Result<std::collections::BTreeSet<String>, Fault> {
    let mut lexer = Lexer::new(text);
    let mut names = std::collections::BTreeSet::new();
    let mut opened = false;
    loop {
        match lexer.next()?.token {
            Token::End => return Ok(names),
            Token::Name(name) if opened => {
                names.insert(name);
                opened = false;
            }
            token => opened = token == Token::Sign("{"),
        }
    }
}
