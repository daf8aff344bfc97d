//! One category.

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
    /// What belongs here and what does not, in a sentence or two. The model reads it, so every word costs prompt tokens.
    pub description: String,
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
    /// A category without aliases, keywords or parent.
    pub fn new(id: impl Into<CategoryId>, name: impl Into<String>, description: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            name: name.into(),
            description: description.into(),
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

    /// The same category as the one that means "none of these".
    #[must_use]
    pub fn as_fallback(mut self) -> Self {
        self.fallback = true;
        self
    }

    /// The line that lists the category in the prompt, cleaned like the text of items.
    pub(crate) fn listing(&self) -> String {
        format!("- {}: {}. {}", self.id, clean(&self.name), clean(&self.description))
    }
}
