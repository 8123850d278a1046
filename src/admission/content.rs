//! A file's markdown, which is looked at as the JSON that it came in: it is most of a review, and most of it is as it
//! was. It is unescaped only where that may change the answer.

use super::markdown::{is_blank, shows_at_once};
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::cmp::Ordering;

/// Longest escape of one character: two `\uXXXX`.
const LONGEST_ESCAPE: usize = 12;
/// So much is compared at a time.
const CHUNK: usize = 4096;

/// Markdown.
#[derive(Clone, Debug)]
pub enum Content<'a> {
    /// As a text.
    Text(Cow<'a, str>),
    /// As a JSON string, with its quotes.
    Json(&'a str),
}

impl Content<'_> {
    /// As a text.
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Text(text) => Cow::Borrowed(text),
            Self::Json(json) if !json.contains('\\') => Cow::Borrowed(inner(json)),
            // half a surrogate pair stands for nothing; the API server sends none
            Self::Json(json) => serde_json::from_str(json).map_or(Cow::Borrowed(inner(json)), Cow::Owned),
        }
    }

    /// Whether a reader would see nothing.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        match self {
            Self::Json(json) if shows_at_once(inner(json)) => false,
            _ => is_blank(&self.text()),
        }
    }

    /// At least its bytes: an escape is never shorter than what it stands for.
    #[must_use]
    pub fn most_bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Json(json) => inner(json).len(),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Content<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = <&RawValue>::deserialize(deserializer)?.get();
        if !json.starts_with('"') {
            return Err(D::Error::custom("not a string"));
        }
        Ok(Self::Json(json))
    }
}

impl PartialEq for Content<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Json(a), Self::Json(b)) if a == b => true,
            (Self::Json(a), Self::Json(b)) if differ(a.as_bytes(), b.as_bytes()) => false,
            _ => self.text() == other.text(),
        }
    }
}

impl Eq for Content<'_> {}

impl PartialOrd for Content<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Content<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        match self == other {
            true => Ordering::Equal,
            false => self.text().cmp(&other.text()),
        }
    }
}

/// Without its quotes.
fn inner(json: &str) -> &str {
    json.get(1..json.len() - 1).unwrap_or_default()
}

/// Whether two JSON strings surely stand for different texts: where they part, neither is in an escape.
fn differ(a: &[u8], b: &[u8]) -> bool {
    let mut chunks = a.chunks(CHUNK).zip(b.chunks(CHUNK));
    let Some(equal) = chunks.position(|(a, b)| a != b).map(|chunks| chunks * CHUNK) else { return false };
    let Some(place) = a.iter().zip(b).skip(equal).position(|(a, b)| a != b).map(|more| equal + more) else {
        return false;
    };
    let before = a.get(place.saturating_sub(LONGEST_ESCAPE)..place).unwrap_or_default();
    let around = before.iter().chain(a.get(place)).chain(b.get(place));
    around.into_iter().all(|byte| *byte != b'\\')
}

#[cfg(test)]
mod tests {
    use super::Content;
    use proptest::prelude::*;

    /// As somebody may write a character: as it is where that is legal, or as an escape.
    fn written() -> impl Strategy<Value = (String, String)> {
        let character = prop_oneof!["[a-c\n\"\\\\]", Just("é".to_owned()), Just("🙂".to_owned())];
        let one = (character, any::<bool>()).prop_map(|(text, is_escaped)| {
            let units = || text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect::<Vec<_>>();
            let plain = || serde_json::to_string(&text).expect("a string");
            let json = if is_escaped { units().concat() } else { super::inner(&plain()).to_owned() };
            (text, json)
        });
        prop::collection::vec(one, 0..20).prop_map(|all| {
            let (text, json): (String, String) = all.into_iter().unzip();
            (text, format!("\"{json}\""))
        })
    }

    proptest! {
        #[test]
        fn content_is_what_its_text_is_however_it_is_written((a, a_json) in written(), (b, b_json) in written(), same in any::<bool>()) {
            let (b, b_json) = if same { (a.clone(), serde_json::to_string(&a).unwrap()) } else { (b, b_json) };
            let read = |json: &'static str| serde_json::from_str::<Content<'_>>(json).unwrap();
            let leak = |json: String| -> &'static str { Box::leak(json.into_boxed_str()) };
            let (x, y) = (read(leak(a_json)), read(leak(b_json)));
            prop_assert_eq!(x.text(), a.as_str());
            prop_assert_eq!(x == y, a == b);
            prop_assert_eq!(x.cmp(&y), a.cmp(&b));
            prop_assert_eq!(x.is_blank(), super::is_blank(&a));
            prop_assert!(x.most_bytes() >= a.len());
        }
    }

    #[test]
    fn what_is_no_text_is_no_content() {
        for json in ["1", "null", "{}", "[\"a\"]", r#""\x""#] {
            assert!(serde_json::from_str::<Content<'_>>(json).is_err(), "{json}");
        }
    }
}
