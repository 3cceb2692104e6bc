//! What the rows may be in the end: of each group of keys, which are always written together, the newest write.

use eddydb::base::Version;

/// The text that the rows of a group have; `None` when they are deleted.
pub type Content = Option<String>;

/// What is known of the writes of one group.
#[derive(Debug, Clone, Default)]
pub struct Group {
    /// The newest that was acknowledged.
    newest: Option<(Version, Content)>,
    /// All that were acknowledged.
    all: Vec<Content>,
    /// Those that failed or never answered: done or not.
    open: Vec<Content>,
}

impl Group {
    pub fn acknowledged(&mut self, version: Version, content: Content) {
        self.all.push(content.clone());
        if self.newest.as_ref().is_none_or(|(newest, _)| version > *newest) {
            self.newest = Some((version, content));
        }
    }

    pub fn uncertain(&mut self, content: Content) {
        self.open.push(content);
    }

    /// A store has gone back to an older backup: what is for sure is what another one has. Each write may be the last that is left.
    pub fn gone_back(&mut self, elsewhere: Option<(Version, String)>) {
        let Some((newest, _)) = &self.newest else { return };
        if elsewhere.as_ref().is_none_or(|(version, _)| version < newest) {
            self.newest = elsewhere.map(|(version, text)| (version, Some(text)));
            self.open.append(&mut self.all);
        }
    }

    /// Panics unless the rows may be so.
    pub fn check(&self, found: Option<&(Version, String)>, when: &str) {
        let fits = match (found, &self.newest) {
            (Some((version, text)), Some((newest, content))) if version == newest => content.as_ref() == Some(text),
            (Some((version, text)), newest) => {
                newest.as_ref().is_none_or(|(newest, _)| version > newest) && self.open.contains(&Some(text.clone()))
            }
            (None, None | Some((_, None))) => true,
            (None, Some((_, Some(_)))) => self.open.contains(&None),
        };
        assert!(fits, "{when}: found {found:?}, which must not be after {self:?}");
    }
}
