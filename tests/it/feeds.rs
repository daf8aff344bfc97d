//! Feeds, from their bytes to the prompt and back.

use std::sync::{Arc, Mutex};

use proptest::collection::vec;
use proptest::prelude::*;
use slugline::feeds;
use slugline::testing::{Asked, Reply, ScriptedTransport};

use crate::props::cases;
use crate::support::builder;

/// A feed in windows-1251 with what real ones have: CDATA, HTML in HTML, entities that XML does not know, a bare ampersand.
const FEED: &str = "<?xml version=\"1.0\" encoding=\"windows-1251\"?><rss version=\"2.0\"><channel><title>Новости</title>\
    <item><guid>1</guid><title>Матч &laquo;Север&raquo; & &#8220;Юг&#8221;</title>\
    <description><![CDATA[<p>Счёт&nbsp;3:0.</p><style>p { color: red }</style><p>Фанаты <b>рад</b>ы.</p>]]></description></item>\
    <item><guid>2</guid><title>Курс &lt;i&gt;рубля&lt;/i&gt;</title><description>&lt;p&gt;Биржа &amp;mdash; закрыта&lt;/p&gt;</description>\
    </item><item><guid>3</guid><enclosure url=\"http://example.org/a.mp3\"/></item></channel></rss>";

#[tokio::test(start_paused = true)]
async fn a_feed_reaches_the_prompt_with_its_text_intact() {
    let (bytes, _, _) = encoding_rs::WINDOWS_1251.encode(FEED);
    let feed = feeds::read(&bytes, None).unwrap();
    assert_eq!((feed.charset, feed.is_damaged, feed.entries.len()), ("windows-1251", false, 3));
    assert_eq!(feed.entries[2], Err(feeds::EntryError::Empty));
    let items: Vec<_> = feed.entries.into_iter().flatten().collect();
    assert!(items.iter().all(|item| item.source.as_deref() == Some("Новости")));

    let asked = Arc::new(Mutex::new(Vec::new()));
    let server = ScriptedTransport::new({
        let asked = Arc::clone(&asked);
        move |request: &Asked| {
            asked.lock().unwrap().extend(request.items.iter().cloned());
            Reply::labels(request.items.iter().map(|_| "sport"))
        }
    });
    let report = builder(&[&server]).build().unwrap().categorize(items).await;
    assert_eq!(report.categorized(), 2);
    let asked = asked.lock().unwrap().join("\n");
    for text in ["Матч «Север» & “Юг”", "Счёт 3:0. Фанаты рады.", "Курс рубля", "Биржа — закрыта"]
    {
        assert!(asked.contains(text), "{text} in {asked}");
    }
    assert!(!asked.contains("color"));
}

#[test]
fn the_charset_of_the_answer_counts_more_than_that_of_the_declaration() {
    let (bytes, _, _) = encoding_rs::KOI8_R.encode(FEED);
    let feed = feeds::read(&bytes, Some("koi8-r")).unwrap();
    assert_eq!(feed.title.as_deref(), Some("Новости"));
    assert!(matches!(feeds::read(&bytes, Some("no-such")), Err(feeds::FeedError::UnknownCharset { .. })));
}

proptest! {
    #![proptest_config(cases(64))]

    /// A feed with any bytes put in anywhere, or cut there, is read or refused.
    #[test]
    fn no_bytes_break_the_reader(at in 0..FEED.len(), cut in any::<bool>(), bytes in vec(any::<u8>(), 0..40)) {
        let mut feed = FEED.as_bytes()[..at].to_vec();
        feed.extend(bytes);
        if !cut {
            feed.extend(&FEED.as_bytes()[at..]);
        }
        if let Ok(feed) = feeds::read(&feed, None) {
            prop_assert!(feed.entries.into_iter().flatten().all(|item| !item.id.is_empty()));
        }
    }

    /// Text without `<` and `&` comes through as it is, but for white space.
    #[test]
    fn plain_text_is_no_html(text in "[^<&\\r\\x00]{0,200}") {
        let folded = |text: &str| text.split([' ', '\t', '\n', '\u{c}']).filter(|word| !word.is_empty()).map(str::to_owned).collect::<Vec<_>>();
        prop_assert_eq!(folded(&feeds::html_to_text(&text)), folded(text.trim_start_matches('\u{feff}')));
    }
}
