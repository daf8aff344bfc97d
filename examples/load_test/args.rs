//! The flags of the command line.

use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use slugline::load::{Arrivals, Length, Lengthening, Order, Probe, Targets, item_tokens_for};
use slugline::server::http_transport;
use slugline::{Api, Categorizer, CategorizerBuilder, EndpointConfig, Taxonomy};

use super::files::is_same_file;
use super::server::{EndpointArgs, read_args, seconds, with};

/// Measures how much a server takes, step by step, and recommends a number of requests in flight.
///
/// Without --input it sends generated items: requests of about 1,100 prompt tokens with the default taxonomy and packs of 3,
/// whose answers are written to 200 tokens. How a server can be brought to that is found by one or two short requests before
/// the first step: vLLM writes on behind its answer, llama.cpp is asked for a longer one. Ctrl-C ends the step, and what was
/// measured by then is written; the same again stops at once.
///
/// Exit code 0: every item got a category. 2: finished, but some got none. 1: it could not start or had to stop; what was
/// finished by then is written.
#[derive(Debug, Parser)]
#[command(name = "load_test", version)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) endpoints: EndpointArgs,

    /// The model, by the name that the servers have for it
    #[arg(long, value_name = "NAME")]
    pub(crate) model: String,

    /// The requests in flight at each server, 1 to 128: a step for each. With --rate the last is the most that are allowed
    #[arg(long, value_name = "N,N,...", value_delimiter = ',', default_value = "1,5,10,25,50,100")]
    concurrency: Vec<usize>,

    /// An open loop: requests are due at this rate per second, whatever becomes of them; a step for each
    #[arg(long, value_name = "R,R,...", value_delimiter = ',')]
    rate: Vec<f64>,

    /// When the requests of an open loop are due
    #[arg(long, value_enum, default_value_t = Due::Random)]
    arrivals: Due,

    /// The requests of a step [default: 12 for each that is in flight]
    #[arg(long, value_name = "N", group = "length")]
    requests: Option<u64>,

    /// The time in which requests of a step are begun
    #[arg(long, value_name = "SECONDS", value_parser = seconds, group = "length")]
    duration: Option<Duration>,

    /// Requests before each step that are not counted [default: as many as are in flight]
    #[arg(long, value_name = "N")]
    warm_up: Option<u64>,

    /// Own items, a JSON object per line; - is standard input. Where they do not suffice they are sent again, with a number
    /// in the title so that none is answered as a copy [default: generated ones]
    #[arg(long, value_name = "FILE.jsonl")]
    pub(crate) input: Option<PathBuf>,

    /// The categories [default: the newsroom's]
    #[arg(long, value_name = "FILE.toml")]
    taxonomy: Option<PathBuf>,

    /// The most items that share a request, 1 to 16
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub(crate) pack_size: usize,

    /// About how many prompt tokens the requests of generated items have, by estimate [default: about 1,100, of which the
    /// default taxonomy and the instructions are 650]
    #[arg(long, value_name = "N", conflicts_with = "input")]
    prompt_tokens: Option<usize>,

    /// Has every answer written to so many tokens; 0 leaves it at what the model writes [default: 200 for generated items, 0
    /// for own ones]
    #[arg(long, value_name = "N")]
    output_tokens: Option<usize>,

    /// The legacy completions call instead of chat
    #[arg(long)]
    completions: bool,

    /// Does not ask for log-probabilities. Never asked for where answers are written to a length: they would be of every token,
    /// and the reference deployment does not ask for any
    #[arg(long)]
    no_confidence: bool,

    /// Makes generated items, arrivals and backoff repeatable
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,

    /// The least share of requests, 0 to 1, that must be answered at the recommended step
    #[arg(long, value_name = "SHARE", default_value_t = Targets::default().least_success_share)]
    least_success: f64,

    /// The longest p95 of the latency at the recommended step
    #[arg(long, value_name = "SECONDS", default_value_t = Targets::default().most_p95_s)]
    most_p95: f64,

    /// Where the page goes, replacing what is there
    #[arg(long, value_name = "FILE.html")]
    pub(crate) report: Option<PathBuf>,

    /// Where all figures go, replacing what is there
    #[arg(long, value_name = "FILE.json")]
    pub(crate) json: Option<PathBuf>,

    /// Where the table goes, replacing what is there
    #[arg(long, value_name = "FILE.csv")]
    pub(crate) csv: Option<PathBuf>,

    /// The server and the machine in words, for the report
    #[arg(long, value_name = "WORDS")]
    pub(crate) about_server: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Due {
    /// As from many callers who know nothing of each other (a Poisson process)
    Random,
    /// At equal distances
    Regular,
}

/// The output tokens of the reference deployment's answers.
const REFERENCE_OUTPUT_TOKENS: usize = 200;
/// So many answers of each place in flight make a step that is not mostly its beginning and end.
const ROUNDS: u64 = 12;

/// A step to be measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Planned {
    concurrency: usize,
    rate: Option<f64>,
    pub(crate) order: Order,
}

impl fmt::Display for Planned {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rate {
            Some(rate) => write!(formatter, "{rate} requests/s due, at most {} in flight", self.concurrency),
            None => write!(formatter, "{} in flight", self.concurrency),
        }
    }
}

impl Args {
    /// Reads the command line. An error is the exit code after help or a complaint was printed.
    pub(crate) fn read() -> Result<Self, ExitCode> {
        read_args(super::complain)
    }

    /// The steps in their order.
    pub(crate) fn plan(&self) -> Result<Vec<Planned>, String> {
        if self.rate.is_empty() {
            return Ok(self.concurrency.iter().map(|concurrency| self.closed(*concurrency)).collect());
        }
        let concurrency = self.concurrency.last().copied().unwrap_or(1);
        self.rate.iter().map(|rate| self.open(*rate, concurrency)).collect()
    }

    fn closed(&self, concurrency: usize) -> Planned {
        let in_flight = (concurrency * self.endpoints.base_url.len()) as u64;
        let order = Order::closed(self.length(ROUNDS * in_flight)).warm_up(self.warm_up.unwrap_or(in_flight));
        Planned { concurrency, rate: None, order }
    }

    fn open(&self, rate: f64, concurrency: usize) -> Result<Planned, String> {
        let arrivals = match self.arrivals {
            Due::Random => Arrivals::Random { seed: self.seed },
            Due::Regular => Arrivals::Regular,
        };
        let order = Order::open(rate, arrivals, self.length((60.0 * rate).ceil() as u64));
        let order = order.map_err(|error| error.to_string())?.warm_up(self.warm_up.unwrap_or(10));
        Ok(Planned { concurrency, rate: Some(rate), order })
    }

    fn length(&self, usual_requests: u64) -> Length {
        match self.duration {
            Some(duration) => Length::Time(duration),
            None => Length::Requests(self.requests.unwrap_or(usual_requests)),
        }
    }

    /// The categorizer of a step with its probe. `by` brings the answers to their length.
    pub(crate) fn categorizer(
        &self,
        taxonomy: &Taxonomy,
        planned: Planned,
        by: Option<Lengthening>,
    ) -> Result<(Categorizer, Probe), String> {
        let lengthened = self.output_tokens().zip(by);
        let probe = lengthened.map_or_else(Probe::new, |(tokens, by)| Probe::with_output_tokens(tokens, by));
        let endpoint = |base_url: &str, key: Option<&str>| {
            let transport = http_transport(base_url, key).map_err(|error| error.to_string())?;
            Ok(EndpointConfig::new(base_url).transport(probe.over(transport)))
        };
        let builder = self.endpoints.builder(taxonomy.clone(), endpoint)?.model(&self.model).pack_size(self.pack_size);
        let builder = builder.concurrency(planned.concurrency).max_concurrency(planned.concurrency).seed(self.seed);
        let builder = builder.confidence(!self.no_confidence && self.output_tokens().is_none());
        let builder = with(builder, self.completions.then_some(Api::Completions), CategorizerBuilder::api);
        let build = |builder: CategorizerBuilder| builder.build().map_err(|error| error.to_string());
        let categorizer = match self.item_tokens(&build(builder.clone())?)? {
            Some(item_tokens) => build(builder.item_tokens(item_tokens))?,
            None => build(builder)?,
        };
        Ok((categorizer, probe))
    }

    /// What a request takes of each generated item, where its size is given.
    pub(crate) fn item_tokens(&self, categorizer: &Categorizer) -> Result<Option<usize>, String> {
        let Some(prompt_tokens) = self.prompt_tokens else { return Ok(None) };
        let least = categorizer.prefix().tokens();
        item_tokens_for(categorizer, prompt_tokens).map(Some).ok_or_else(|| {
            format!(
                "--prompt-tokens {prompt_tokens} leaves too little for {} items: the taxonomy and the instructions take \
                 about {least}; take more tokens, or fewer items with --pack-size",
                self.pack_size
            )
        })
    }

    pub(crate) fn taxonomy(&self) -> Result<Taxonomy, String> {
        const NEWSROOM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/categories/newsroom.toml");
        let path = self.taxonomy.clone().unwrap_or_else(|| NEWSROOM.into());
        Taxonomy::load(&path).map_err(|error| error.to_string())
    }

    /// The length that answers are written to; none where they are left as they are.
    pub(crate) fn output_tokens(&self) -> Option<usize> {
        let usual = if self.input.is_some() { 0 } else { REFERENCE_OUTPUT_TOKENS };
        Some(self.output_tokens.unwrap_or(usual)).filter(|tokens| *tokens > 0)
    }

    pub(crate) fn targets(&self) -> Targets {
        Targets { least_success_share: self.least_success, most_p95_s: self.most_p95 }
    }

    /// Refuses to write over a file that is needed.
    pub(crate) fn refuse_overwriting(&self) -> Result<(), String> {
        let mut needed: Vec<_> = [("input", &self.input), ("taxonomy", &self.taxonomy)]
            .into_iter()
            .filter_map(|(role, path)| Some((role, path.as_ref()?)))
            .collect();
        for (role, target) in [("report", &self.report), ("json", &self.json), ("csv", &self.csv)] {
            let Some(target) = target else { continue };
            if let Some((other, _)) = needed.iter().find(|(_, path)| is_same_file(target, path)) {
                return Err(format!(
                    "--{role} {} is the same file as --{other} and would overwrite it",
                    target.display()
                ));
            }
            needed.push((role, target));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(more: &[&str]) -> Args {
        let usual = ["load_test", "--base-url", "http://127.0.0.1:1/v1", "--model", "m"];
        Args::try_parse_from(usual.iter().chain(more)).unwrap()
    }

    fn plan(more: &[&str]) -> Vec<String> {
        args(more).plan().unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn there_is_a_step_for_each_concurrency_or_rate() {
        let usual = ["1 in flight", "5 in flight", "10 in flight", "25 in flight", "50 in flight", "100 in flight"];
        assert_eq!(plan(&[]), usual);
        assert_eq!(plan(&["--concurrency", "2", "--duration", "30"]), ["2 in flight"]);
        let open = ["2 requests/s due, at most 50 in flight", "4.5 requests/s due, at most 50 in flight"];
        assert_eq!(plan(&["--rate", "2,4.5", "--concurrency", "10,50"]), open);
        assert!(args(&["--rate", "0"]).plan().is_err());
        let both = ["load_test", "--base-url", "x", "--model", "m", "--requests", "5", "--duration", "9"];
        assert!(Args::try_parse_from(both).is_err());
    }

    #[test]
    fn answers_of_generated_items_are_written_to_the_reference_length() {
        assert_eq!(args(&[]).output_tokens(), Some(200));
        assert_eq!(args(&["--output-tokens", "0"]).output_tokens(), None);
        assert_eq!(args(&["--input", "news.jsonl"]).output_tokens(), None);
        assert_eq!(args(&["--input", "news.jsonl", "--output-tokens", "60"]).output_tokens(), Some(60));
    }

    #[test]
    fn a_file_that_is_needed_is_not_written_over() {
        let error = args(&["--report", "a.html", "--json", "./a.html"]).refuse_overwriting().unwrap_err();
        assert!(error.contains("--json ./a.html is the same file as --report"), "{error}");
        assert!(args(&["--input", "a.jsonl", "--csv", "a.jsonl"]).refuse_overwriting().is_err());
    }

    #[test]
    fn a_size_of_requests_is_kept_or_refused() {
        let item_tokens = |more: &[&str]| {
            let args = args(more);
            let taxonomy = args.taxonomy().unwrap();
            let (categorizer, _) = args.categorizer(&taxonomy, args.plan().unwrap()[0], None)?;
            args.item_tokens(&categorizer)
        };
        assert_eq!(item_tokens(&[]), Ok(None));
        let (three, one) =
            (item_tokens(&["--prompt-tokens", "2000"]), item_tokens(&["--prompt-tokens", "2000", "--pack-size", "1"]));
        let (three, one) = (three.unwrap().unwrap(), one.unwrap().unwrap());
        assert!((350..480).contains(&three) && (one / 3).abs_diff(three) < 20, "{three} {one}");
        assert!(item_tokens(&["--prompt-tokens", "300"]).unwrap_err().contains("--pack-size"));
        assert!(
            Args::try_parse_from(["load_test", "--model", "m", "--prompt-tokens", "900", "--input", "a.jsonl"])
                .is_err()
        );
    }

    #[test]
    fn a_concurrency_that_cannot_be_is_refused_before_anything_is_sent() {
        let args = args(&["--concurrency", "0,500"]);
        let taxonomy = args.taxonomy().unwrap();
        for planned in args.plan().unwrap() {
            let error = args.categorizer(&taxonomy, planned, None).unwrap_err();
            assert!(error.contains("1 to 128"), "{error}");
        }
    }
}
