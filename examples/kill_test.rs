//! Kills the example `categorize` again and again, at random moments, and starts it again with the same command.
//!
//! `cargo build --release --examples && cargo run --release --example kill_test -- [--items N] [--kills N] [--faults SHARE]
//! [--seed N]`
//!
//! The endpoints are three simulated servers with faults, each a process of its own, as is the one that is killed (with
//! SIGKILL, so that nothing can be tidied up). The input has ids that stand for several items, texts that stand under several
//! ids, lines that are no items, and blank lines. What is checked holds by construction: the words of an item say which
//! category is right. After each kill the output must have no line twice and none that is wrong, the last one may be torn;
//! at the end there must be exactly one whole line for each line of the input, and hardly more items may have been asked
//! than without kills. Ends with 1 if anything is lost, doubled, torn, wrong, or asked twice without need.

use std::error::Error;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::time::Instant;

use clap::Parser;
use serde::Deserialize;

#[derive(Parser)]
#[command(about = "Kills `categorize --ledger` at random moments and checks that nothing is lost, doubled or torn")]
struct Arguments {
    /// The lines of the input.
    #[arg(long, default_value_t = 20_000)]
    items: usize,
    /// How often it is killed.
    #[arg(long, default_value_t = 20)]
    kills: usize,
    /// The share of requests that meet a fault, 0 to 1.
    #[arg(long, default_value_t = 0.1)]
    faults: f64,
    /// Decides the moments of the kills, so far as a clock can be trusted [default: random].
    #[arg(long)]
    seed: Option<u64>,
}

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Words that stand in the description of one category alone, so that the simulation labels them rightly.
const SUBJECTS: [(&str, &str); 5] = [
    ("sport", "athletes matches"),
    ("economy", "companies markets"),
    ("culture", "museums concerts"),
    ("health", "hospitals vaccines"),
    ("weather", "storms rainfall"),
];
/// Items that may be in flight: three servers, at most 25 requests each, three items a request.
const MOST_IN_FLIGHT: usize = 3 * 25 * 3;
/// Items that the faults alone may cost in one run and not in another.
const MOST_FAILED_BY_CHANCE: usize = 2;
/// What the faults make of the number of items asked differs between two runs by less than this share.
const SLACK: f64 = 0.02;

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            println!("FAILED: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..));
    let mut random = fastrand::Rng::with_seed(seed);
    let folder = Folder::new()?;
    let expected = write_input(&folder, arguments.items)?;
    println!(
        "{} lines, {} items among them; three SIMULATED servers, {:.0} % faults; seed {seed}",
        arguments.items,
        expected.iter().filter(|line| matches!(line, Expected::Item { .. })).count(),
        100.0 * arguments.faults
    );

    let servers = Servers::start(arguments.faults)?;
    let start = Instant::now();
    let command = servers.command(&folder, "undisturbed");
    end(command.spawn_quietly()?, &command)?;
    let (undisturbed, asked_undisturbed) = (start.elapsed(), servers.stop()?);
    let failed_undisturbed = check(&command.output, &expected, true)?.failed;
    println!("undisturbed: {:.1} s, {asked_undisturbed} items asked", undisturbed.as_secs_f64());

    let servers = Servers::start(arguments.faults)?;
    let (mut kills, mut runs) = (0, 1);
    let mut command = servers.command(&folder, "killed-1");
    while kills < arguments.kills {
        let mut child = command.spawn_quietly()?;
        std::thread::sleep(undisturbed.mul_f64(random.f64() / 4.0));
        if child.try_wait()?.is_some() {
            end(child, &command)?;
            check(&command.output, &expected, true)?;
            println!("run {runs} came to its end");
            runs += 1;
            command = servers.command(&folder, &format!("killed-{runs}"));
            continue;
        }
        child.kill()?;
        child.wait()?;
        kills += 1;
        let Found { lines, torn_bytes, .. } = check(&command.output, &expected, false)?;
        println!("kill {kills}: {lines} whole lines, {torn_bytes} bytes of a torn one");
    }
    end(command.spawn_quietly()?, &command)?;
    let Found { lines, failed, .. } = check(&command.output, &expected, true)?;
    if failed > failed_undisturbed + MOST_FAILED_BY_CHANCE {
        return Err(format!("{failed} items ended as errors, undisturbed {failed_undisturbed}").into());
    }
    // Once more: there is nothing left to ask.
    end(command.spawn_quietly()?, &command)?;
    check(&command.output, &expected, true)?;
    let asked = servers.stop()?;

    let bound = (runs * asked_undisturbed) as f64 * (1.0 + SLACK) + (kills * MOST_IN_FLIGHT) as f64;
    println!("{asked} items asked in {runs} runs with {kills} kills; the bound is {bound:.0}");
    if asked as f64 > bound {
        return Err(format!("{asked} items were asked, more than {bound:.0}").into());
    }
    println!("PASSED: {lines} lines for {} of the input, none lost, doubled, torn or wrong", lines_of(&expected));
    Ok(())
}

/// What a line of the input must become.
#[derive(PartialEq)]
enum Expected {
    Item { id: String, category: &'static str },
    Invalid,
    Nothing,
}

fn lines_of(expected: &[Expected]) -> usize {
    expected.iter().filter(|line| **line != Expected::Nothing).count()
}

fn write_input(folder: &Folder, lines: usize) -> Result<Vec<Expected>> {
    let mut taxonomy = "name = \"kill-test\"\nversion = \"1\"\n".to_owned();
    for (id, words) in SUBJECTS {
        write!(taxonomy, "[[category]]\nid = \"{id}\"\nname = \"{id}\"\ndescription = \"About {words}.\"\n")?;
    }
    std::fs::write(folder.path("taxonomy.toml"), taxonomy)?;
    let mut text = String::new();
    let mut expected = Vec::new();
    for number in 0..lines {
        expected.push(match number % 100 {
            17 => {
                text.push_str("this is no JSON\n");
                Expected::Invalid
            }
            42 => {
                writeln!(text, "{{\"id\": \"item-{number}\", \"title\": [\"no text\"]}}")?;
                Expected::Invalid
            }
            77 => {
                text.push('\n');
                Expected::Nothing
            }
            // Every tenth has the id of the line before, every eleventh the text of an earlier line.
            _ => {
                let id = format!("item-{}", if number % 10 == 3 { number - 1 } else { number });
                let story = if number % 11 == 5 { number / 2 } else { number };
                let (category, words) = SUBJECTS[story % SUBJECTS.len()];
                writeln!(text, "{{\"id\": \"{id}\", \"title\": \"{words} {story}\", \"body\": \"More on {words}.\"}}")?;
                Expected::Item { id, category }
            }
        });
    }
    std::fs::write(folder.path("items.jsonl"), text)?;
    Ok(expected)
}

/// What is in an output.
struct Found {
    lines: usize,
    /// Items with an error in place of a category.
    failed: usize,
    torn_bytes: usize,
}

/// Checks every line of an output. Only one that is not whole yet may have a torn end.
fn check(output: &Path, expected: &[Expected], is_whole: bool) -> Result<Found> {
    #[derive(Deserialize)]
    struct Written {
        id: Option<String>,
        line: usize,
        category: Option<String>,
        error: Option<serde_json::Value>,
    }
    let bytes = match std::fs::read(output) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !is_whole => Vec::new(),
        bytes => bytes?,
    };
    let end = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    let (mut seen, mut failed) = (vec![false; expected.len()], 0);
    for text in bytes[..end].split_inclusive(|&byte| byte == b'\n') {
        let text = String::from_utf8_lossy(text);
        let line: Written = serde_json::from_str(&text).map_err(|error| format!("torn line {text:?}: {error}"))?;
        let at = line.line.checked_sub(1).filter(|at| *at < expected.len()).ok_or("a line of no input")?;
        if std::mem::replace(&mut seen[at], true) {
            return Err(format!("doubled: {text}").into());
        }
        let is_right = match &expected[at] {
            // An item may fail for good where faults meet often, but not as another.
            Expected::Item { id, category } => {
                failed += usize::from(line.error.is_some());
                line.id.as_ref() == Some(id) && (line.category.as_deref() == Some(category) || line.error.is_some())
            }
            Expected::Invalid => line.error.is_some_and(|error| error["kind"] == "invalid-line"),
            Expected::Nothing => false,
        };
        if !is_right {
            return Err(format!("wrong: {text}").into());
        }
    }
    let lines = seen.iter().filter(|is_seen| **is_seen).count();
    let torn_bytes = bytes.len() - end;
    if is_whole && (lines != lines_of(expected) || torn_bytes > 0) {
        return Err(format!("{lines} of {} lines, {torn_bytes} torn bytes", lines_of(expected)).into());
    }
    Ok(Found { lines, failed, torn_bytes })
}

/// Waits for the end of a run that is not killed: 2, since the input has lines that are no items.
fn end(child: Child, command: &Categorize) -> Result<()> {
    let output = child.wait_with_output()?;
    if output.status.code() != Some(2) {
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("{} ended with {}: {words}", command.output.display(), output.status).into());
    }
    Ok(())
}

/// One command line of the example.
struct Categorize {
    arguments: Vec<String>,
    output: PathBuf,
}

impl Categorize {
    fn spawn_quietly(&self) -> Result<Child> {
        let program = beside("categorize")?;
        Ok(Command::new(program).args(&self.arguments).stdin(Stdio::null()).stderr(Stdio::piped()).spawn()?)
    }
}

/// Another example, which is built into the same folder.
fn beside(name: &str) -> Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name).with_extension(std::env::consts::EXE_EXTENSION);
    if path.exists() {
        Ok(path)
    } else {
        Err(format!("no {}: cargo build --release --examples", path.display()).into())
    }
}

struct Servers(Vec<Server>);

struct Server {
    process: Child,
    words: BufReader<ChildStdout>,
    base_url: String,
}

impl Servers {
    fn start(faults: f64) -> Result<Self> {
        let start = |seed: u64| -> Result<Server> {
            let mut command = Command::new(beside("simulated_server")?);
            command.args(["--port", "0", "--latency", "none", "--faults", &faults.to_string()]);
            let mut process = command.args(["--seed", &seed.to_string()]).stdout(Stdio::piped()).spawn()?;
            let mut words = BufReader::new(process.stdout.take().ok_or("no output of the server")?);
            let mut line = String::new();
            words.read_line(&mut line)?;
            let base_url = line.split_whitespace().find(|word| word.starts_with("http")).ok_or("no server")?;
            Ok(Server { process, words, base_url: base_url.trim_end_matches(',').to_owned() })
        };
        Ok(Self((1..=3).map(start).collect::<Result<_>>()?))
    }

    /// The command line of a run with an output and a ledger of its own.
    fn command(&self, folder: &Folder, name: &str) -> Categorize {
        let output = folder.path(&format!("{name}.jsonl"));
        let path = |path: &Path| path.display().to_string();
        let mut arguments = vec![
            "--input".to_owned(),
            path(&folder.path("items.jsonl")),
            "--output".to_owned(),
            path(&output),
            "--ledger".to_owned(),
            path(&folder.path(&format!("{name}.ledger"))),
            "--taxonomy".to_owned(),
            path(&folder.path("taxonomy.toml")),
        ];
        for server in &self.0 {
            arguments.extend(["--base-url".to_owned(), server.base_url.clone()]);
        }
        arguments.extend(["--model", "simulated", "--timeout", "2"].map(str::to_owned));
        Categorize { arguments, output }
    }

    /// Ends them, and gives the items that they were asked.
    fn stop(mut self) -> Result<usize> {
        let mut items = 0;
        for server in &mut self.0 {
            let id = server.process.id().to_string();
            Command::new("kill").args(["-INT", &id]).status()?;
            let mut words = String::new();
            server.words.read_to_string(&mut words)?;
            server.process.wait()?;
            let count = words.split(", ").find_map(|part| part.strip_suffix(" items"));
            items += count.ok_or("the server does not say how many items it was asked")?.parse::<usize>()?;
        }
        Ok(items)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A folder that is gone at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("slugline-kill-test-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
