//! News that nobody wrote: sentences put together for each category, all different.

use slugline::NewsItem;

/// The categories of `categories/ag-news.toml` that the sentences are for, in the order of the tables.
pub(crate) const CATEGORIES: [&str; 4] = ["world", "sports", "business", "technology"];

/// Who, does, and what, by category; any three make a headline.
const HEADLINES: [[[&str; 8]; 3]; 4] = [
    [
        ["President", "Foreign minister", "Rebels", "Police", "Voters", "Aid workers", "Parliament", "Peacekeepers"],
        ["condemn", "await", "debate", "survive", "report", "reject", "discuss", "protest against"],
        [
            "border talks",
            "an election delay",
            "the flood disaster",
            "a hostage crisis",
            "new sanctions",
            "the ceasefire",
            "a bomb attack",
            "the refugee camps",
        ],
    ],
    [
        ["Striker", "Champions", "Rookie pitcher", "Coach", "Visitors", "Sprinter", "Goalkeeper", "Home side"],
        ["wins", "loses", "dominates", "misses", "celebrates", "prepares for", "shines in", "recovers for"],
        [
            "the cup final",
            "a tight derby",
            "the opening game",
            "the playoff series",
            "the relay heat",
            "an overtime thriller",
            "the season opener",
            "the qualifying round",
        ],
    ],
    [
        ["Bank", "Oil producer", "Retailer", "Airline", "Carmaker", "Insurer", "Central bank", "Steelmaker"],
        ["raises", "cuts", "warns about", "defends", "reviews", "misses", "beats", "reports on"],
        [
            "quarterly profit",
            "the share buyback",
            "its dividend",
            "a merger offer",
            "the price forecast",
            "annual sales",
            "interest costs",
            "the job losses",
        ],
    ],
    [
        [
            "Scientists",
            "Software maker",
            "Astronomers",
            "Browser team",
            "Chip designer",
            "Researchers",
            "Start-up",
            "Lab",
        ],
        ["unveil", "test", "patch", "delay", "explore", "launch", "improve", "question"],
        [
            "a wireless standard",
            "the space probe",
            "a security flaw",
            "the search engine",
            "a quantum computer",
            "an operating system",
            "the virus scanner",
            "a robot explorer",
        ],
    ],
];

/// What the text goes on with, by category.
const DETAILS: [[&str; 8]; 4] = [
    [
        "Diplomats met until late in the night without an agreement.",
        "Troops were sent to the two northern provinces.",
        "The opposition called for a new vote within a month.",
        "Hospitals counted dozens of wounded after the clashes.",
        "The envoy said that the prisoners would be released.",
        "Thousands of families have left their villages.",
        "A court ordered the arrest of the former governor.",
        "The council of ministers is to meet on the matter.",
    ],
    [
        "The second half brought two goals in three minutes.",
        "An injured knee keeps the captain out for a month.",
        "It was the eighth victory in a row at this stadium.",
        "The referee sent two players off before the break.",
        "A last lap of great speed decided the race.",
        "The league table has a new leader for now.",
        "Fans sang for their team long after the whistle.",
        "The transfer of the young winger is nearly done.",
    ],
    [
        "Shares fell three percent in early trading.",
        "Analysts had expected higher earnings for the quarter.",
        "The regulator must still approve the takeover.",
        "Crude prices rose again on fears about supply.",
        "Two plants are to be closed to save money.",
        "Consumers spent less than in the year before.",
        "The board asked its investors for patience.",
        "Exports made up for weak demand at home.",
    ],
    [
        "The new version is free to download from the web.",
        "Its battery lasts twice as long as that of older gadgets.",
        "Hackers had used the hole for weeks before it was known.",
        "The telescope sent pictures of a distant planet.",
        "A prototype of the processor runs at low power.",
        "The online service has a million users already.",
        "The experiment may help to read genes faster.",
        "Broadband networks carry the calls over the internet.",
    ],
];

/// Says nothing of any category.
const FILLERS: [&str; 8] = [
    "Nobody wished to say more on the day.",
    "It had been talked about for weeks.",
    "Many were surprised by the news.",
    "More is to be known by the end of the week.",
    "It is not the first time that this has happened.",
    "There were mixed feelings about it.",
    "Others had seen it coming.",
    "The next days will show what comes of it.",
];

/// The item of a number and the place of its category, the same every time. No two are the same, since each has its number; in
/// one of five the details are those of another category.
pub(crate) fn made_up(number: u64) -> (NewsItem, usize) {
    let mut random = fastrand::Rng::with_seed(number);
    let category = random.usize(..CATEGORIES.len());
    let [who, does, what] = HEADLINES[category].map(|words| words[random.usize(..words.len())]);
    let others = if random.f64() < 0.2 { random.usize(..CATEGORIES.len()) } else { category };
    let mut sentences: Vec<&str> = (0..2).map(|_| DETAILS[others][random.usize(..8)]).collect();
    sentences.push(FILLERS[random.usize(..FILLERS.len())]);
    random.shuffle(&mut sentences);
    let body = format!("{} Report {number}.", sentences.join(" "));
    (NewsItem::new(number.to_string(), format!("{who} {does} {what}"), body), category)
}
