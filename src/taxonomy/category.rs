//! One category.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::prompt::clean::clean;

/// The identifier of a category, which is also the label that the model writes: short, lower-case, meaningful words
/// joined by hyphens, such as `science-tech`.
///
/// Meaningful words matter: a small model asked for opaque codes got half as many items right.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CategoryId(Arc<str>);

impl CategoryId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for CategoryId {
    fn from(id: &str) -> Self {
        Self(id.into())
    }
}

impl From<String> for CategoryId {
    fn from(id: String) -> Self {
        Self(id.into())
    }
}

impl fmt::Display for CategoryId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A category of a [`Taxonomy`](crate::Taxonomy), which checks it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Category {
    /// The identifier and label.
    pub id: CategoryId,
    /// The name for people.
    pub name: String,
    /// The name in other languages, by language tag such as `de` or `pt-BR`. For output alone: the model reads
    /// [`name`](Self::name), and labels are not matched against these.
    pub names: BTreeMap<String, String>,
    /// What belongs here and what does not, in a sentence or two. The model reads it, so every word costs prompt tokens.
    /// May be empty for a category with a parent, which the model sees below the path to it.
    pub description: String,
    /// The code of the category in the scheme that it is from, such as `medtop:04000000`. Not in the prompt; labelled data
    /// may use it as a label.
    pub code: Option<String>,
    /// Other labels that mean this category, for matching labelled data and answers.
    pub aliases: Vec<String>,
    /// Words typical of the category, for lexical engines and tools. Not in the prompt.
    pub keywords: Vec<String>,
    /// The category above this one in the tree.
    pub parent: Option<CategoryId>,
    /// Whether this is the category that means "none of these".
    pub fallback: bool,
}

impl Category {
    /// A category with these three alone.
    pub fn new(id: impl Into<CategoryId>, name: impl Into<String>, description: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            name: name.into(),
            names: BTreeMap::new(),
            description: description.into(),
            code: None,
            aliases: Vec::new(),
            keywords: Vec::new(),
            parent: None,
            fallback: false,
        }
    }

    /// The same category with one more alias.
    #[must_use]
    pub fn with_alias(mut self, alias: impl Into<String>) -> Self {
        self.aliases.push(alias.into());
        self
    }

    /// The same category with one more keyword.
    #[must_use]
    pub fn with_keyword(mut self, keyword: impl Into<String>) -> Self {
        self.keywords.push(keyword.into());
        self
    }

    /// The same category below a parent.
    #[must_use]
    pub fn with_parent(mut self, parent: impl Into<CategoryId>) -> Self {
        self.parent = Some(parent.into());
        self
    }

    /// The same category with its code in the scheme that it is from.
    #[must_use]
    pub fn with_code(mut self, code: impl Into<String>) -> Self {
        self.code = Some(code.into());
        self
    }

    /// The same category with its name in one more language.
    #[must_use]
    pub fn with_name_in(mut self, language: impl Into<String>, name: impl Into<String>) -> Self {
        self.names.insert(language.into(), name.into());
        self
    }

    /// The same category as the one that means "none of these".
    #[must_use]
    pub fn as_fallback(mut self) -> Self {
        self.fallback = true;
        self
    }

    /// The name in a language: that of the tag, else that of a shorter one (`de` for `de-AT`), else [`name`](Self::name).
    ///
    /// ```
    /// let sport = slugline::Category::new("sport", "Sport", "Games.").with_name_in("fi", "Urheilu");
    /// assert_eq!((sport.name_in("fi-FI"), sport.name_in("en")), ("Urheilu", "Sport"));
    /// ```
    pub fn name_in(&self, language: &str) -> &str {
        let mut tag = language.trim();
        loop {
            if let Some((_, name)) = self.names.iter().find(|(known, _)| known.eq_ignore_ascii_case(tag)) {
                return name;
            }
            match tag.rsplit_once('-') {
                Some((shorter, _)) => tag = shorter,
                None => return &self.name,
            }
        }
    }

    /// A hash of what the category means, in hexadecimal: id, name, description, parent, whether it is the fallback, aliases
    /// and keywords in whatever order. The code and the names in other languages are not in it.
    pub fn hash(&self) -> String {
        self.full_hash().to_hex()[..16].to_owned()
    }

    pub(super) fn full_hash(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        let mut field = |text: &str| {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        };
        field(self.id.as_str());
        field(&self.name);
        field(&self.description);
        field(self.parent.as_ref().map_or("", CategoryId::as_str));
        field(if self.fallback { "fallback" } else { "" });
        for list in [&self.aliases, &self.keywords] {
            let mut sorted: Vec<&str> = list.iter().map(String::as_str).collect();
            sorted.sort_unstable();
            field(&sorted.len().to_string());
            sorted.into_iter().for_each(&mut field);
        }
        hasher.finalize()
    }

    /// The line that lists the category in the prompt, cleaned like the text of items.
    pub(crate) fn listing(&self) -> String {
        let description = clean(&self.description);
        let separator = if description.is_empty() { "" } else { " " };
        format!("- {}: {}.{separator}{description}", self.id, clean(&self.name))
    }
}
