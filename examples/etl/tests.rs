//! The example as its user sees it: files in, files out, against simulated servers on loopback.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use clap::Parser;
use serde_json::{Value, json};
use slugline::testing::{Fault, Faults, Poison, SimulatedServer};

use super::args::Args;
use super::compression::{Compression, Encoder, decompressed};
use super::report::Report;
use super::stop::Stop;
use super::{read, run};

/// Texts that a careless reader or writer of some format would spoil.
const TEXTS: [&str; 8] = [
    "plain, with \"quotes\" and a comma",
    "two\nlines\r\nand a\ttab",
    "日本語の記事。中文也行",
    "می\u{200c}شود و عربي",
    "עברית ‏\u{202b}right to left\u{202c}",
    "👩\u{200d}👩\u{200d}👧 🇺🇦 e\u{301}",
    "<p>Fish &amp; chips</p>",
    "'=1+1; \\ \u{feff} end ",
];

/// A directory that is removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("slugline-etl-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

async fn server() -> SimulatedServer {
    SimulatedServer::builder().start().await.unwrap()
}

fn args(server: &SimulatedServer, folder: &Folder, input: &Path, output: &str, more: &[&str]) -> Args {
    let rejects = folder.path("rejects.jsonl");
    let base_url = server.base_url();
    let output = if output.starts_with('/') { output.into() } else { folder.path(output) };
    let fixed = [
        "etl",
        "--input",
        input.to_str().unwrap(),
        "--output",
        output.to_str().unwrap(),
        "--rejects",
        rejects.to_str().unwrap(),
        "--taxonomy",
        "categories/newsroom.toml",
        "--base-url",
        &base_url,
        "--model",
        "simulated",
    ];
    Args::try_parse_from(fixed.into_iter().chain(more.iter().copied())).unwrap()
}

async fn run_to_end(args: &Args) -> Report {
    let report = run(args, &Stop::default(), |_| {}).await.unwrap();
    assert!(report.adds_up, "{:?}", report.rows);
    report
}

fn lines(path: &Path) -> Vec<Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// `count` items with ids `a-0`, `a-1`, …, a line each.
fn jsonl(count: usize) -> String {
    let line = |number: usize| json!({"id": format!("a-{number}"), "title": format!("story {number}"), "body": "text"});
    (0..count).map(|number| line(number).to_string() + "\n").collect()
}

/// Rows by their ids, each of which must be there once.
fn by_id(rows: Vec<Value>) -> BTreeMap<String, Value> {
    let count = rows.len();
    let rows: BTreeMap<_, _> = rows.into_iter().map(|row| (row["id"].as_str().unwrap().to_owned(), row)).collect();
    assert_eq!(rows.len(), count);
    rows
}

#[tokio::test]
async fn texts_go_through_each_format_and_compression_intact() {
    let (folder, server) = (Folder::new("formats"), server().await);
    let items: String = (0..)
        .zip(TEXTS)
        .map(|(number, text)| {
            json!({"id": number, "title": text, "body": text, "extra": {"n": number}}).to_string() + "\n"
        })
        .collect();
    let items = folder.write("items.jsonl", items);
    for name in ["a.jsonl", "a.jsonl.gz", "a.ndjson.zst", "a.csv", "a.csv.gz", "a.tsv.zst", "a.parquet"] {
        // Out in this format, and in again: what was carried over is then the input.
        let keep = ["--keep", "title", "--keep", "body", "--keep", "extra"];
        let there = run_to_end(&args(&server, &folder, &items, name, &keep)).await;
        assert_eq!((there.exit.code, there.rows.categorized), (0, 8), "{name}: {}", there.exit.reason);
        let more = ["--keep", "title", "--keep", "body", "--keep", "extra"];
        let back = run_to_end(&args(&server, &folder, &folder.path(name), "back.jsonl", &more)).await;
        assert_eq!((back.rows.categorized, back.rows.rejected), (8, 0), "{name}");
        let rows = by_id(lines(&folder.path("back.jsonl")));
        for (number, text) in (0..).zip(TEXTS) {
            let row = &rows[&number.to_string()];
            assert_eq!((row["title"].as_str(), row["body"].as_str()), (Some(text), Some(text)), "{name}");
            assert!(row["extra"].to_string().contains('n'), "{name}: {row}");
        }
        assert!(!folder.path(&format!("{name}.partial")).exists());
    }
}

#[tokio::test]
async fn the_sample_comes_through_with_its_rejects() {
    let (folder, server) = (Folder::new("sample"), server().await);
    let (json, page) = (folder.path("report.json"), folder.path("report.html"));
    let more =
        ["--keep", "title", "--keep", "body", "--report", json.to_str().unwrap(), "--page", page.to_str().unwrap()];
    let args = args(&server, &folder, Path::new("examples/etl/sample"), "out.jsonl", &more);
    let report = run_to_end(&args).await;
    assert_eq!((report.exit.code, report.rows.rows, report.rows.rejected), (2, 17, 5), "{:?}", report.rows);
    assert_eq!(report.blank_lines, 1);

    let rows = by_id(lines(&folder.path("out.jsonl")));
    let text = |id: &str| (rows[id]["title"].as_str().unwrap(), rows[id]["body"].as_str().unwrap());
    // Charsets, entities, CDATA and HTML of the feeds; the others are as they were.
    assert_eq!(text("ru-1"), ("Сборная выиграла матч «всухую»", "Счёт — 3:0.\nБолельщики довольны."));
    assert_eq!(text("ru-2"), ("Музей открыл выставку № 7", "Вход свободный"));
    assert_eq!(
        text("https://example.org/fr/1"),
        (
            "Grève à l'hôpital\u{a0}: les médecins & les infirmières",
            "Le mouvement durera jusqu’à vendredi.\nÉtat des lieux."
        )
    );
    assert_eq!(text("urn:example:1"), ("東京で国際映画祭が開幕 🎬", "世界各地から百本の作品。\n入場は無料。"));
    assert_eq!(text("urn:example:2"), ("תחזית: גשם בצפון", "הרוחות ייחלשו – מחר שמש."));
    assert_eq!(text("urn:example:3").0, "می\u{200c}شود: نمایشگاه کتاب");
    assert_eq!(text("csv-1").1, "The new bridge cost \"less than planned\".\nIt opens on Monday.");
    assert_eq!(text("2").0, "انتخابات محلية اليوم");

    let rejects: BTreeSet<_> = lines(&folder.path("rejects.jsonl"))
        .iter()
        .map(|reject| {
            let file = Path::new(reject["file"].as_str().unwrap()).file_name().unwrap().to_str().unwrap().to_owned();
            (file, reject["line"].as_u64().unwrap(), reject["id"].as_str().map(str::to_owned))
        })
        .collect();
    let expected = [
        ("city.csv", 5, None),
        ("city.csv", 6, None),
        ("wire.jsonl", 2, None),
        ("wire.jsonl", 5, Some("wire-3")),
        ("world.atom", 4, None),
    ];
    assert_eq!(rejects, expected.map(|(file, line, id)| (file.to_owned(), line, id.map(str::to_owned))).into());

    let json: Value = serde_json::from_str(&fs::read_to_string(json).unwrap()).unwrap();
    assert_eq!(
        (&json["adds_up"], &json["rows"]["rejected"], &json["exit"]["code"]),
        (&json!(true), &json!(5), &json!(2))
    );
    let page = fs::read_to_string(page).unwrap();
    assert!(page.contains("adds up") && page.contains("world.atom"));
    for way in ["<script", "http://", "src=", "@import", "<link"] {
        assert!(!page.replace(&server.base_url(), "").contains(way), "{way}");
    }
}

#[tokio::test]
async fn a_directory_is_read_in_the_order_of_its_paths_without_what_the_run_writes() {
    let (folder, server) = (Folder::new("order"), server().await);
    for name in
        ["b/2.jsonl", "b/10.jsonl", "a.csv", "c.rss", ".hidden.jsonl", "notes.txt", "out.jsonl", "out.jsonl.partial"]
    {
        folder.write(name, "");
    }
    let args = args(&server, &folder, &folder.0, "out.jsonl", &[]);
    let inputs = read::list(&args).unwrap();
    let short = |path: &str| path.strip_prefix(folder.0.to_str().unwrap()).unwrap().to_owned();
    assert_eq!(inputs.names().map(short).collect::<Vec<_>>(), ["/a.csv", "/b/10.jsonl", "/b/2.jsonl", "/c.rss"]);
    let skipped: Vec<_> = inputs.skipped.iter().map(|path| short(path.to_str().unwrap())).collect();
    assert_eq!(skipped, ["/notes.txt", "/out.jsonl", "/out.jsonl.partial"]);
}

#[tokio::test]
async fn columns_are_mapped_and_a_table_without_them_is_refused() {
    let (folder, server) = (Folder::new("columns"), server().await);
    let input = folder.write("a.csv", "\u{feff}guid,headline,tag\n1,Goal,x\n2,Rain,\n");
    let without = run(&args(&server, &folder, &input, "out.csv", &[]), &Stop::default(), |_| {}).await.unwrap();
    assert_eq!((without.exit.code, without.rows.rows), (1, 0));
    assert!(
        without.exit.reason.contains("a.csv") && without.exit.reason.contains("--id-column"),
        "{}",
        without.exit.reason
    );

    let columns = ["--id-column", "guid", "--title-column", "headline", "--keep", "tag"];
    let report = run_to_end(&args(&server, &folder, &input, "out.csv", &columns)).await;
    assert_eq!((report.exit.code, report.rows.categorized), (0, 2));
    let mut reader = csv::Reader::from_path(folder.path("out.csv")).unwrap();
    assert_eq!(reader.headers().unwrap().iter().next_back(), Some("tag"));
    let tags: BTreeSet<_> = reader.records().map(|row| row.unwrap().iter().next_back().unwrap().to_owned()).collect();
    assert_eq!(tags, [String::new(), "x".to_owned()].into());

    let taken = args(&server, &folder, &input, "out.csv", &["--keep", "category"]);
    assert!(run(&taken, &Stop::default(), |_| {}).await.unwrap_err().contains("--keep"));
}

#[tokio::test]
async fn rows_add_up_while_the_server_errs() {
    let folder = Folder::new("faults");
    let faults = Faults::none()
        .with(Fault::DropObject, 0.2)
        .with(Fault::DuplicateObject, 0.1)
        .with(Fault::UnknownLabel, 0.2)
        .with(Fault::CutAnswer, 0.1)
        .poison("plague", Poison::Status400);
    let server = SimulatedServer::builder().faults(faults).start().await.unwrap();
    let mut text = jsonl(300).replace("story 17\"", "plague 17\"").replace("story 18\"", "plague 18\"");
    text.push_str("no JSON\n\n{\"id\": \"empty\", \"title\": \"\"}\n");
    let input = folder.write("a.jsonl", text);
    let report = run_to_end(&args(&server, &folder, &input, "out.parquet", &[])).await;
    let rows = &report.rows;
    assert_eq!((rows.rows, rows.rejected, rows.written, report.blank_lines), (302, 1, 301, 1));
    assert!(rows.failed >= 3 && report.exit.code == 2, "{rows:?}");
    assert!(report.stats.reasked > 0, "the faults were met");

    // What was written says the same.
    let more = ["--title-column", "id", "--keep", "error_kind", "--keep", "line"];
    let error =
        run(&args(&server, &folder, &folder.path("out.parquet"), "b.jsonl", &more), &Stop::default(), |_| {}).await;
    assert!(error.unwrap_err().contains("error_kind"));
    let mut kinds: BTreeMap<String, u64> = BTreeMap::new();
    let file = parquet::file::reader::SerializedFileReader::try_from(folder.path("out.parquet").as_path()).unwrap();
    for row in file {
        for (column, field) in row.unwrap().into_columns() {
            if column == "error_kind" {
                *kinds.entry(field.to_string()).or_default() += 1;
            }
        }
    }
    assert_eq!((kinds["\"rejected\""], kinds["\"empty\""], kinds["null"]), (2, 1, rows.categorized), "{kinds:?}");
}

#[tokio::test]
async fn an_interrupted_run_writes_what_is_done() {
    let (folder, server) = (Folder::new("interrupted"), server().await);
    let input = folder.write("a.jsonl", jsonl(20_000));
    let args = args(&server, &folder, &input, "out.jsonl.gz", &["--concurrency", "1"]);
    let stop = Stop::default();
    let (report, ()) = tokio::join!(run(&args, &stop, |_| {}), async {
        while server.counts().items < 30 {
            tokio::task::yield_now().await;
        }
        stop.stop();
    });
    let report = report.unwrap();
    let rows = &report.rows;
    assert!(
        report.adds_up && report.exit.code == 1 && report.exit.reason.contains("stopped"),
        "{}",
        report.exit.reason
    );
    assert!((30..20_000).contains(&rows.written), "{}", rows.written);
    let mut text = String::new();
    decompressed(fs::File::open(folder.path("out.jsonl.gz")).unwrap()).unwrap().read_to_string(&mut text).unwrap();
    let written = by_id(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect());
    assert_eq!(written.len() as u64, rows.written);
    assert!(written.values().all(|row| row["category"].is_string()));
}

#[tokio::test]
async fn a_run_that_has_to_stop_leaves_an_earlier_output_alone() {
    let folder = Folder::new("earlier");
    let refusing = SimulatedServer::builder().api_key(Some("right".into())).start().await.unwrap();
    let input = folder.write("a.jsonl", jsonl(10));
    let earlier = folder.write("out.jsonl", "of yesterday\n");
    let report = run_to_end(&args(&refusing, &folder, &input, "out.jsonl", &[])).await;
    assert_eq!(report.exit.code, 1);
    assert!(report.exit.reason.contains("out.jsonl.partial"), "{}", report.exit.reason);
    assert_eq!(fs::read_to_string(&earlier).unwrap(), "of yesterday\n");
    assert_eq!(lines(&folder.path("out.jsonl.partial")).len() as u64, report.rows.written);

    let report = run_to_end(&args(&server().await, &folder, &input, "out.jsonl", &[])).await;
    assert_eq!((report.exit.code, lines(&earlier).len()), (0, 10));
    assert!(!folder.path("out.jsonl.partial").exists());
}

#[tokio::test]
async fn a_table_without_rows_or_columns_does_not_end_the_run() {
    let (folder, server) = (Folder::new("tables"), server().await);
    folder.write("in/a.csv", "id,title\n1,Goal\n");
    folder.write("in/b.csv", "");
    folder.write("in/c.csv", "number,words\n1,Rain\n");
    folder.write("in/d.csv", "id,title\n2,Rain\n");
    let report = run_to_end(&args(&server, &folder, &folder.path("in"), "out.jsonl", &[])).await;
    let rows = &report.rows;
    assert_eq!((report.exit.code, rows.categorized, rows.rejected, report.adds_up), (2, 2, 2, true), "{rows:?}");
    let reasons: Vec<_> = rows.reasons.keys().collect();
    assert!(reasons[0].contains("--id-column") && reasons[1].contains("empty"), "{reasons:?}");
}

#[tokio::test]
async fn a_run_that_has_to_stop_says_what_was_not_attempted() {
    let folder = Folder::new("refused");
    let server = SimulatedServer::builder().api_key(Some("right".into())).start().await.unwrap();
    let input = folder.write("a.jsonl", jsonl(10));
    let report = run_to_end(&args(&server, &folder, &input, "out.jsonl", &[])).await;
    assert!(report.exit.code == 1 && report.exit.reason.contains("key"), "{}", report.exit.reason);
    let rows = lines(&folder.path("out.jsonl"));
    assert_eq!(rows.len() as u64, report.rows.written);
    assert!(rows.iter().all(|row| row["error"]["kind"] == "not-attempted"), "{rows:?}");
}

#[tokio::test]
async fn with_a_ledger_nothing_is_asked_twice() {
    let (folder, server) = (Folder::new("ledger"), server().await);
    let input = folder.write("a.jsonl", jsonl(50));
    let ledger = folder.path("answers.ledger");
    let more = ["--ledger", ledger.to_str().unwrap()];
    let first = run_to_end(&args(&server, &folder, &input, "first.csv", &more)).await;
    let asked = server.counts().items;
    let second = run_to_end(&args(&server, &folder, &input, "second.parquet", &more)).await;
    assert_eq!((first.stats.from_ledger, second.stats.from_ledger, server.counts().items), (0, 50, asked));
    assert_eq!(first.rows.categories, second.rows.categories);

    // Numbers of Parquet are ids, too.
    let more = ["--id-column", "line", "--title-column", "name"];
    run_to_end(&args(&server, &folder, &folder.path("second.parquet"), "third.jsonl", &more)).await;
    let ids: BTreeSet<u64> = by_id(lines(&folder.path("third.jsonl"))).keys().map(|id| id.parse().unwrap()).collect();
    assert_eq!(ids, (1..=50).collect());
}

#[tokio::test]
async fn an_input_that_is_cut_ends_the_run_after_what_was_read() {
    let (folder, server) = (Folder::new("cut"), server().await);
    for (name, compression) in [("a.jsonl.gz", Compression::Gzip), ("a.jsonl.zst", Compression::Zstd)] {
        // Random titles, so that half of the bytes are about half of the rows.
        let mut random = fastrand::Rng::with_seed(7);
        let mut encoder = Encoder::new(Vec::new(), compression).unwrap();
        for number in 0..20_000 {
            let title: String = (0..30).map(|_| random.alphanumeric()).collect();
            if number % 1_000 == 0 {
                writeln!(encoder, "{}", json!({"id": number, "title": title})).unwrap();
            } else {
                writeln!(encoder, "{title}").unwrap();
            }
        }
        let bytes = encoder.finish().unwrap();
        let input = folder.write(name, &bytes[..bytes.len() / 2]);
        let report = run_to_end(&args(&server, &folder, &input, "out.jsonl", &[])).await;
        assert_eq!(report.exit.code, 1);
        assert!(
            report.exit.reason.contains(name) && report.exit.reason.contains("after row"),
            "{}",
            report.exit.reason
        );
        assert!((1..20).contains(&report.rows.categorized), "{:?}", report.rows.categorized);
    }
    let broken = folder.write("broken.parquet", b"PAR1 and then something else PAR1");
    let report = run_to_end(&args(&server, &folder, &broken, "out.jsonl", &[])).await;
    assert!(report.exit.code == 1 && report.exit.reason.contains("broken.parquet"), "{}", report.exit.reason);
}

#[tokio::test]
async fn a_quote_that_is_never_closed_is_an_error_and_not_a_row() {
    let (folder, server) = (Folder::new("quote"), server().await);
    let mut text = "id,title\n1,fine\n2,\"never closed\n".to_owned();
    text.push_str(&"3,more\n".repeat(3 * 1024 * 1024));
    let input = folder.write("a.csv", text);
    let report = run_to_end(&args(&server, &folder, &input, "out.csv", &[])).await;
    assert!(report.exit.code == 1 && report.exit.reason.contains("quote"), "{}", report.exit.reason);
    assert_eq!((report.rows.categorized, report.rows.rejected), (1, 0));
}

#[tokio::test]
async fn what_is_no_feed_is_rejected_whole_and_the_others_go_on() {
    let (folder, server) = (Folder::new("nofeed"), server().await);
    folder.write("feeds/a.xml", "<html>moved</html>");
    folder.write("feeds/b.xml", fs::read("examples/etl/sample/feeds/novosti.rss").unwrap());
    let feed = "<rss version=\"2.0\"><channel><item><guid>caf\u{e9}</guid><title>T</title></item></channel></rss>";
    folder.write("feeds/c.xml", feed.chars().map(|c| c as u8).collect::<Vec<_>>());
    let report = run_to_end(&args(&server, &folder, &folder.path("feeds"), "out.jsonl", &[])).await;
    assert_eq!((report.exit.code, report.rows.categorized, report.rows.rejected), (2, 3, 1));
    assert!(report.rows.damaged.len() == 1 && report.rows.damaged[0].ends_with("c.xml"), "{:?}", report.rows.damaged);
    assert!(report.to_html().contains("c.xml.") && report.rows_in_words().iter().any(|line| line.contains("charset")));
    let rejects = lines(&folder.path("rejects.jsonl"));
    assert!(rejects[0]["line"].is_null() && rejects[0]["reason"].as_str().unwrap().contains("RSS"), "{rejects:?}");
}

#[tokio::test]
async fn mistakes_are_told_before_anything_is_asked() {
    let (folder, server) = (Folder::new("mistakes"), server().await);
    let input = folder.write("a.jsonl", jsonl(1));
    let unknown = folder.write("a.txt", "");
    let problem = async |input: &Path, output: &str, more: &[&str]| {
        run(&args(&server, &folder, input, output, more), &Stop::default(), |_| {}).await.unwrap_err()
    };
    assert!(problem(&folder.path("none.jsonl"), "o.jsonl", &[]).await.contains("none.jsonl"));
    assert!(problem(&unknown, "o.jsonl", &[]).await.contains("--input-format"));
    assert!(problem(&input, "o.xyz", &[]).await.contains("--output-format"));
    assert!(problem(&input, "o.rss", &[]).await.contains("feed"));
    assert!(problem(&input, "o.parquet", &["--compression", "gzip"]).await.contains("Parquet"));
    assert!(problem(&input, "a.jsonl", &[]).await.contains("same file"));
    assert!(problem(&input, "none/o.jsonl", &[]).await.contains("create output"));
    assert_eq!(server.counts().completion_requests(), 0);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_disk_is_an_error_that_names_the_file() {
    let (folder, server) = (Folder::new("full"), server().await);
    let input = folder.write("a.jsonl", jsonl(10));
    for more in [&["--output-format", "jsonl"][..], &["--output-format", "parquet"], &["--output-format", "csv"]] {
        let report = run(&args(&server, &folder, &input, "/dev/full", more), &Stop::default(), |_| {}).await.unwrap();
        assert_eq!(report.exit.code, 1, "{more:?}");
        assert!(
            report.exit.reason.contains("/dev/full") && report.exit.reason.contains("space"),
            "{}",
            report.exit.reason
        );
    }
}
