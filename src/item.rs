//! The news item as the caller hands it in.

use std::fmt;

use serde::Serialize;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A news item: what is to be categorized.
///
/// The text is taken as it comes from a feed or an archive: entities, HTML tags and control characters are cleaned away
/// for the prompt only, never in the item itself.
///
/// From JSON, unknown fields are ignored, `lang` is read as [`language`](Self::language) and `date` as
/// [`published`](Self::published), a numeric `id` is taken as its decimal text, and an optional field of an unexpected
/// type is left empty, so that one odd field does not cost an item.
///
/// ```
/// use slugline::NewsItem;
///
/// let item: NewsItem = serde_json::from_str(r#"{"id": "a1", "title": "Cup final", "body": "…", "lang": "en"}"#)?;
/// assert_eq!(item, NewsItem::new("a1", "Cup final", "…").with_language("en"));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[non_exhaustive]
pub struct NewsItem {
    /// The caller's identifier; it comes back in the item's [`Outcome`](crate::Outcome). Not shown to the model.
    pub id: String,
    /// The headline. May be empty when there is a body.
    pub title: String,
    /// The text, plain or HTML. May be empty when there is a title.
    pub body: String,
    /// Where the item comes from, for example a feed's name. Not shown to the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The language, for example `en`. Not shown to the model, which reads it off the text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// When the item was published, in whatever form the source gives it. Not shown to the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub published: Option<String>,
}

impl NewsItem {
    /// An item with the three fields that every item has.
    pub fn new(id: impl Into<String>, title: impl Into<String>, body: impl Into<String>) -> Self {
        Self { id: id.into(), title: title.into(), body: body.into(), source: None, language: None, published: None }
    }

    /// The same item with its [`source`](Self::source) set.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<String>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same item with its [`language`](Self::language) set.
    #[must_use]
    pub fn with_language(mut self, language: impl Into<String>) -> Self {
        self.language = Some(language.into());
        self
    }

    /// The same item with its [`published`](Self::published) set.
    #[must_use]
    pub fn with_published(mut self, published: impl Into<String>) -> Self {
        self.published = Some(published.into());
        self
    }
}

impl<'de> Deserialize<'de> for NewsItem {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        struct Fields {
            id: Scalar,
            #[serde(default)]
            title: Scalar,
            #[serde(default)]
            body: Scalar,
            #[serde(default)]
            source: Scalar,
            #[serde(default)]
            language: Scalar,
            #[serde(default)]
            lang: Scalar,
            #[serde(default)]
            published: Scalar,
            #[serde(default)]
            date: Scalar,
        }
        use serde::de::Error;

        let fields = Fields::deserialize(deserializer)?;
        let id = match fields.id {
            Scalar::Text(id) if !id.is_empty() => id,
            _ => return Err(D::Error::custom("`id` must be a string or an integer that is not empty")),
        };
        let required = |name: &str, value: Scalar| match value {
            Scalar::Text(text) => Ok(text),
            Scalar::Absent => Ok(String::new()),
            Scalar::Other => Err(D::Error::custom(format!("`{name}` must be a string"))),
        };
        Ok(Self {
            id,
            title: required("title", fields.title)?,
            body: required("body", fields.body)?,
            source: fields.source.text(),
            language: fields.language.text().or_else(|| fields.lang.text()),
            published: fields.published.text().or_else(|| fields.date.text()),
        })
    }
}

/// A JSON value reduced to what an item's field can use.
#[derive(Default)]
enum Scalar {
    #[default]
    Absent,
    Text(String),
    Other,
}

impl Scalar {
    fn text(self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text),
            Self::Absent | Self::Other => None,
        }
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ScalarVisitor;

        impl<'de> Visitor<'de> for ScalarVisitor {
            type Value = Scalar;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a JSON value")
            }
            fn visit_str<E>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar::Text(text.to_owned()))
            }
            fn visit_string<E>(self, text: String) -> Result<Scalar, E> {
                Ok(Scalar::Text(text))
            }
            fn visit_i64<E>(self, number: i64) -> Result<Scalar, E> {
                Ok(Scalar::Text(number.to_string()))
            }
            fn visit_u64<E>(self, number: u64) -> Result<Scalar, E> {
                Ok(Scalar::Text(number.to_string()))
            }
            fn visit_unit<E>(self) -> Result<Scalar, E> {
                Ok(Scalar::Absent)
            }
            fn visit_none<E>(self) -> Result<Scalar, E> {
                Ok(Scalar::Absent)
            }
            fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Scalar, D::Error> {
                Scalar::deserialize(deserializer)
            }
            fn visit_bool<E>(self, _: bool) -> Result<Scalar, E> {
                Ok(Scalar::Other)
            }
            fn visit_f64<E>(self, _: f64) -> Result<Scalar, E> {
                Ok(Scalar::Other)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Scalar, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Scalar::Other)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scalar, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Scalar::Other)
            }
        }
        deserializer.deserialize_any(ScalarVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<NewsItem, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn reads_the_usual_shapes_of_archives() {
        let item =
            parse(r#"{"id":7,"title":"T","body":null,"label":"x","source":{"n":1},"date":"2026-01-01","tags":[1]}"#);
        assert_eq!(item.unwrap(), NewsItem::new("7", "T", "").with_published("2026-01-01"));
    }

    #[test]
    fn both_spellings_of_a_field_may_stand_side_by_side() {
        let item = parse(r#"{"id":"a","title":"T","body":"B","language":"de","lang":"en"}"#).unwrap();
        assert_eq!(item.language.as_deref(), Some("de"));
    }

    #[test]
    fn an_item_without_identifier_or_with_a_structured_title_is_refused() {
        assert!(parse(r#"{"title":"T","body":"B"}"#).unwrap_err().contains("id"));
        assert!(parse(r#"{"id":"","title":"T"}"#).unwrap_err().contains("not empty"));
        assert!(parse(r#"{"id":"a","title":["T"],"body":"B"}"#).unwrap_err().contains("`title` must be a string"));
    }
}
