use std::collections::BTreeMap;

use crate::base::{Error, Result};
use crate::db::{Collection, Highlight, SearchRequest};
use crate::model::text::{Analyzer, Marks, highlight};
use crate::model::{Field, Row, Value};

/// Bytes of a fragment, and fragments of a field, when nothing is said.
const FRAGMENT_SIZE: usize = 100;
const FRAGMENTS: usize = 3;

/// What is shown of the texts that were found.
#[derive(Default)]
pub(super) struct Shown<'a> {
    options: Option<&'a Highlight>,
    fields: Vec<ShownField<'a>>,
}

/// What of one field.
struct ShownField<'a> {
    name: &'a str,
    analyzer: &'a Analyzer,
    /// Those of the query, as this field has them.
    terms: Vec<String>,
    /// Whether it is read only to be shown.
    is_extra: bool,
}

impl Collection {
    /// What a request wants to be shown; has its fields read too.
    pub(super) fn shown<'a>(
        &'a self,
        request: &'a SearchRequest,
        field: &'a Field,
        output: &mut Option<Vec<String>>,
    ) -> Result<Shown<'a>> {
        let Some(options) = &request.highlight else { return Ok(Shown::default()) };
        let Value::String(text) = &request.vector else {
            return Err(Error::invalid("highlight is for a search of one text"));
        };
        let named = options.fields.iter().map(|name| self.text_field(Some(name))).collect::<Result<Vec<_>>>()?;
        let mut fields = Vec::new();
        for field in if named.is_empty() { vec![field] } else { named } {
            let Some(analyzer) = field.analyzer.as_deref() else { continue };
            let terms = analyzer.terms(text).into_iter().map(|(term, _)| term).collect();
            let lacking = output.as_mut().filter(|output| !output.contains(&field.name));
            let is_extra = lacking.is_some();
            if let Some(output) = lacking {
                output.push(field.name.clone());
            }
            fields.push(ShownField { name: &field.name, analyzer, terms, is_extra });
        }
        Ok(Shown { options: Some(options), fields })
    }
}

impl Shown<'_> {
    /// What is shown of a row; takes out of it what was read only for that.
    pub(super) fn highlights(&self, row: &mut Row) -> BTreeMap<String, Vec<String>> {
        let mut highlights = BTreeMap::new();
        let Some(options) = self.options else { return highlights };
        let marks = Marks {
            tags: (options.pre_tag.as_deref().unwrap_or("<em>"), options.post_tag.as_deref().unwrap_or("</em>")),
            size: options.fragment_size.unwrap_or(FRAGMENT_SIZE),
            count: options.num_fragments.unwrap_or(FRAGMENTS),
        };
        for ShownField { name, analyzer, terms, is_extra } in &self.fields {
            if let Some(Value::String(text)) = row.get(*name) {
                let asks_for = |term: &str| terms.iter().any(|wanted| wanted == term);
                let fragments = highlight(analyzer, text, &asks_for, &marks);
                if !fragments.is_empty() {
                    highlights.insert((*name).to_owned(), fragments);
                }
            }
            if *is_extra {
                row.remove(*name);
            }
        }
        highlights
    }
}
