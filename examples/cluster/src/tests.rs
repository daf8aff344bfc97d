//! Queries over small Parquet files against a simulated server.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;

use clap::Parser;
use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::prelude::{DataFrame, ParquetReadOptions, SessionConfig, SessionContext};
use slugline::testing::{Faults, Poison, SimulatedServer};
use slugline::{Categorizer, Taxonomy};
use tempfile::TempDir;

use crate::categorize::{Categorize, asking_once};
use crate::generate::{Row, write};
use crate::{Command, Result, STACK_BYTES, rows};

const TAXONOMY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../categories/newsroom.toml");

/// A server that rejects every request with this word.
async fn server() -> Result<SimulatedServer> {
    Ok(SimulatedServer::builder().faults(Faults::none().poison("xyzzy", Poison::Status400)).start().await?)
}

fn row(id: &str, title: Option<&str>, body: Option<&str>) -> Row {
    (id.into(), title.map(Into::into), body.map(Into::into))
}

/// Items of all kinds: plain, without a title, without a body, without either, and one that the server rejects.
fn items() -> Vec<Row> {
    vec![
        row("a", Some("Athletes of all clubs at the matches"), Some("The season begins.")),
        row("b", None, Some("Athletes of other clubs at the matches.")),
        row("c", Some("Companies and markets wait for figures"), None),
        row("d", None, None),
        row("e", Some("xyzzy"), Some("Museums and concerts.")),
    ]
}

/// A session with the table `news`, and the function as it is run.
async fn session(folder: &TempDir, server: &SimulatedServer, items: &[Row]) -> Result<SessionContext> {
    let news = folder.path().join("news.parquet");
    write(&news, items)?;
    let categorizer =
        Categorizer::builder(Taxonomy::load(TAXONOMY)?).endpoint(server.base_url()).model("simulated").build()?;
    let context = SessionContext::new_with_config(asking_once(SessionConfig::new()));
    context.register_udf(Categorize::by(categorizer).into_udf());
    context.register_parquet("news", news.to_string_lossy(), ParquetReadOptions::default()).await?;
    Ok(context)
}

async fn table(frame: DataFrame) -> Result<String> {
    Ok(pretty_format_batches(&frame.collect().await?)?.to_string())
}

#[tokio::test]
async fn every_item_has_a_category_or_an_error() -> Result<()> {
    let (folder, server) = (TempDir::new()?, server().await?);
    let context = session(&folder, &server, &items()).await?;
    let query = "SELECT id, c['category'] AS category, c['confidence'] > 0 AS confident, c['error'] AS error \
                 FROM (SELECT *, categorize(title, body) AS c FROM news) ORDER BY id";
    let expected = "\
+----+----------+-----------+----------+
| id | category | confident | error    |
+----+----------+-----------+----------+
| a  | sport    | true      |          |
| b  | sport    | true      |          |
| c  | economy  | true      |          |
| d  |          |           | empty    |
| e  |          |           | rejected |
+----+----------+-----------+----------+";
    assert_eq!(table(context.sql(query).await?).await?, expected);
    Ok(())
}

#[tokio::test]
async fn a_query_that_uses_the_answer_often_asks_once() -> Result<()> {
    let (folder, server) = (TempDir::new()?, server().await?);
    let items: Vec<Row> = (0..30)
        .map(|number| row(&number.to_string(), Some(&format!("Match {number} of the athletes")), None))
        .collect();
    let context = session(&folder, &server, &items).await?;
    context.sql(crate::SQL).await?.collect().await?;
    assert_eq!(server.counts().items, 30);

    let query = "SELECT c['category'] AS category, count(*) AS items, count(c['confidence']) AS confident \
                 FROM (SELECT *, categorize(title, body) AS c FROM news) \
                 WHERE c['category'] = 'sport' AND c['error'] IS NULL GROUP BY c['category']";
    let expected = "\
+----------+-------+-----------+
| category | items | confident |
+----------+-------+-----------+
| sport    | 30    | 30        |
+----------+-------+-----------+";
    assert_eq!(table(context.sql(query).await?).await?, expected);
    assert_eq!(server.counts().items, 60);
    Ok(())
}

#[tokio::test]
async fn strings_in_the_query_are_items_too() -> Result<()> {
    let (folder, server) = (TempDir::new()?, server().await?);
    let context = session(&folder, &server, &items()).await?;
    let query = "SELECT c['category'] AS category FROM (SELECT categorize('Athletes at the matches', NULL) AS c)";
    assert!(table(context.sql(query).await?).await?.contains("| sport "));
    Ok(())
}

#[tokio::test]
async fn what_stops_the_run_fails_the_query() -> Result<()> {
    let folder = TempDir::new()?;
    let server = SimulatedServer::builder().api_key(Some("secret".into())).start().await?;
    let context = session(&folder, &server, &items()).await?;
    let failure = context.sql("SELECT categorize(title, body) FROM news").await?.collect().await.unwrap_err();
    assert!(failure.to_string().contains("401"), "{failure}");
    Ok(())
}

#[tokio::test]
async fn a_process_that_asks_no_server_says_so() -> Result<()> {
    let context = SessionContext::new();
    context.register_udf(Categorize::declared().into_udf());
    let failure = context.sql("SELECT categorize('a', 'b')").await?.collect().await.unwrap_err();
    assert!(failure.to_string().contains("only declared"), "{failure}");
    Ok(())
}

#[tokio::test]
async fn a_row_too_few_or_too_many_is_found() -> Result<()> {
    let folder = TempDir::new()?;
    let path = |name: &str| folder.path().join(format!("{name}.parquet"));
    let context = SessionContext::new();
    write(&path("news"), &items())?;
    for (name, ids, is_right) in [
        ("right", "('a'), ('b'), ('c'), ('d'), ('e')", true),
        ("few", "('a'), ('b'), ('c'), ('d')", false),
        ("double", "('a'), ('b'), ('c'), ('d'), ('e'), ('e')", false),
        ("other", "('a'), ('b'), ('c'), ('d'), ('f')", false),
    ] {
        let sql = format!("SELECT id, 'sport' AS category, CAST(NULL AS TEXT) AS error FROM (VALUES {ids}) AS t (id)");
        rows::write(context.sql(&sql).await?, &path(name)).await?;
        assert_eq!(rows::check(&path("news"), &path(name)).await.is_ok(), is_right, "{name}");
    }
    Ok(())
}

/// Ballista sends the asynchronous function with the plan, which is what the whole package rests on.
#[test]
fn a_cluster_answers_as_one_process_does() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(STACK_BYTES).build()?;
    runtime.block_on(async { tokio::spawn(ask_a_cluster()).await? })?;
    // The scheduler and the executor would go on.
    runtime.shutdown_background();
    Ok(())
}

async fn ask_a_cluster() -> Result<()> {
    let (folder, server) = (TempDir::new()?, server().await?);
    let news = folder.path().join("news");
    fs::create_dir(&news)?;
    for file in 0..4 {
        let items: Vec<Row> = (0..50)
            .map(|number| row(&format!("{file}-{number}"), Some(&format!("Match {number} of club {file}")), None))
            .collect();
        write(&news.join(format!("{file}.parquet")), &items)?;
    }
    let [scheduler, results, tasks] = free_ports()?;
    start(&["scheduler", "--port", &scheduler]);
    start(&[
        "executor",
        "--scheduler-port",
        &scheduler,
        "--port",
        &results,
        "--task-port",
        &tasks,
        "--endpoint",
        &server.base_url(),
        "--model",
        "simulated",
        "--taxonomy",
        TAXONOMY,
        "--ledger",
        &text(folder.path().join("ledger")),
    ]);
    let (url, out) = (format!("df://127.0.0.1:{scheduler}"), folder.path().join("out.parquet"));
    let arguments = ["client", "--scheduler", &url, "--news", &text(news.clone()), "--out", &text(out.clone())];
    crate::run(command(&arguments)).await?;
    let tally = rows::check(&news, &out).await?;
    assert_eq!((tally.rows, tally.categorized), (200, 200));
    assert_eq!(server.counts().items, 200);
    Ok(())
}

fn command(arguments: &[&str]) -> Command {
    Command::parse_from([&["slugline-cluster"], arguments].concat())
}

fn start(arguments: &[&str]) {
    tokio::spawn(crate::run(command(arguments)));
}

fn text(path: PathBuf) -> String {
    path.to_string_lossy().into_owned()
}

/// Ports that were free a moment ago; all are held until the last is found, so that no two are the same.
fn free_ports() -> Result<[String; 3]> {
    let listeners = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0"));
    let mut ports = Vec::new();
    for listener in &listeners {
        ports.push(listener.as_ref().map_err(ToString::to_string)?.local_addr()?.port().to_string());
    }
    Ok(<[String; 3]>::try_from(ports).expect("three listeners have three ports"))
}
