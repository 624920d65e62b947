//! The manual, one topic a file, which `agentpmt-proxy manual` prints.

/// One topic.
#[derive(Debug, PartialEq, Eq)]
pub struct Topic {
    /// The word that names it.
    pub name: &'static str,
    /// Its file, from the root of the repository.
    pub path: &'static str,
    /// The whole text, in Markdown. The first heading says what the topic is about.
    pub text: &'static str,
}

macro_rules! topic {
    ($name:literal) => {
        topic!($name, concat!("src/manual/", $name, ".md"))
    };
    ($name:literal, $path:expr) => {
        Topic { name: $name, path: $path, text: include_str!(concat!("../", $path)) }
    };
}

/// Every topic, in the order for reading.
pub static TOPICS: &[Topic] = &[
    topic!("api"),
    topic!("mcp"),
    topic!("paying"),
    topic!("errors"),
    topic!("reliability"),
    topic!("configuration"),
    topic!("wallets"),
    topic!("sharing"),
    topic!("operating"),
    topic!("state"),
    topic!("sandbox"),
    topic!("security"),
    topic!("performance"),
    topic!("agent", "examples/skill/SKILL.md"),
];

impl Topic {
    /// The topic with this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        TOPICS.iter().find(|topic| topic.name == name)
    }

    /// Its subject, in a few words.
    pub fn about(&self) -> &'static str {
        let heading = self.text.lines().find(|line| line.starts_with("# ")).unwrap_or_default();
        heading.split_once(": ").map_or(heading, |(_, about)| about)
    }
}
