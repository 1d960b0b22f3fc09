//! The command tree: names and options of every command, and nothing else.
//!
//! Invariant: no option takes a secret's value, and no help text promises what is not built.

mod secret;
mod vault;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::FalseyValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};

pub use self::secret::{Secret, SecretDelete, SecretImport, SecretName, SecretRollback, SecretSet};
pub use self::vault::{Audit, AuditTail, Vault, VaultRekey};

/// Carries the keys, so that your agents don't have to.
#[derive(Debug, Parser)]
#[command(
    name = "keyferry",
    version,
    about = "Carries the keys, so that your agents don't have to",
    before_help = "\
Examples:
  keyferry secret set anthropic:work        store a key (asked for without echo)
  keyferry run -- claude                    start an agent that never sees it
  keyferry demo                             watch it work, offline, in ten seconds
  keyferry serve                            the daemon, for agents started elsewhere
  eval \"$(keyferry env --agent coder)\"      this shell's processes go through the daemon",
    after_help = "A page per command: keyferry COMMAND --help. What an answer's code means: keyferry explain CODE.",
    subcommand_required = true,
    disable_help_subcommand = true,
    max_term_width = 110
)]
pub struct Cli {
    /// What every command takes.
    #[command(flatten)]
    pub global: Global,
    /// Which command.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Keep everything in DIR instead of the XDG directories
    #[arg(long, global = true, value_name = "DIR", env = "KEYFERRY_HOME", hide_env_values = true)]
    #[arg(help_heading = "Global options")]
    pub home: Option<PathBuf>,
    /// Read the configuration from FILE instead of the home's keyferry.yaml
    #[arg(long, global = true, value_name = "FILE", env = "KEYFERRY_CONFIG", hide_env_values = true)]
    #[arg(help_heading = "Global options")]
    pub config: Option<PathBuf>,
    /// Write JSON to stdout
    #[arg(long, global = true, help_heading = "Global options")]
    pub json: bool,
    /// Say nothing but errors and warnings
    #[arg(short, long, global = true, help_heading = "Global options")]
    pub quiet: bool,
    /// Never ask; fail instead
    #[arg(long, global = true, env = "KEYFERRY_NO_INPUT", value_parser = FalseyValueParser::new())]
    #[arg(hide_env_values = true, help_heading = "Global options")]
    pub no_input: bool,
}

/// The commands, in the order in which a newcomer meets them.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the main job against a built-in provider: offline, in a throw-away home, ends by itself
    Demo,
    /// Run a command with placeholders instead of keys, behind a proxy of its own or the home's daemon
    #[command(before_help = RUN_EXAMPLES)]
    Run(Run),
    /// Run the daemon in the foreground
    #[command(before_help = SERVE_EXAMPLES)]
    Serve,
    /// Write a commented configuration
    Init(Init),
    /// Store, list and delete secrets; values are never shown
    #[command(subcommand, before_help = secret::EXAMPLES)]
    Secret(Secret),
    /// The state of each credential in its provider's pool
    #[command(subcommand)]
    Profile(Profile),
    /// Agents and their tokens
    #[command(subcommand, before_help = AGENT_EXAMPLES)]
    Agent(Agent),
    /// Print the variables for a process that talks to the running daemon
    #[command(before_help = ENV_EXAMPLES)]
    Env(Env),
    /// State at a glance
    Status,
    /// Have the daemon read its configuration anew; a faulty file changes nothing
    Reload,
    /// Check, show and describe the configuration
    #[command(subcommand)]
    Config(Config),
    /// What would become of a request: which rule decides, which profile, what is put in
    #[command(before_help = WHY_EXAMPLES)]
    Why(Why),
    /// The local certificate authority
    #[command(subcommand)]
    Ca(Ca),
    /// Keys, copies and integrity of the vault
    #[command(subcommand, before_help = vault::EXAMPLES)]
    Vault(Vault),
    /// The log of changes and uses
    #[command(subcommand)]
    Audit(Audit),
    /// The catalogue of providers
    #[command(subcommand)]
    Provider(Provider),
    /// Pass stdin on to stdout with every stored value and everything that looks like a token masked
    #[command(before_help = "Example:\n  make test 2>&1 | keyferry redact > for-everybody.log")]
    Redact,
    /// Look for stored values and tokens of known shapes in files; ends with 1 where one is found
    #[command(before_help = "Examples:\n  keyferry scan .\n  keyferry scan --json build/ notes.txt")]
    Scan(Scan),
    /// What the code of an answer means, and what to do
    Explain(Explain),
    /// Write a completion script for a shell to stdout
    #[command(
        before_help = "Example:\n  keyferry completion bash > ~/.local/share/bash-completion/completions/keyferry"
    )]
    Completion(Completion),
    /// The version
    Version,

    /// Interactive first steps
    #[command(hide = true)]
    Setup(Later),
    /// Checks with a fix per finding
    #[command(hide = true)]
    Doctor(Later),
    /// The request log
    #[command(hide = true)]
    Logs(Later),
    /// Live terminal view
    #[command(hide = true)]
    Top(Later),
    /// Administrators' tokens
    #[command(hide = true)]
    Admin(Later),
    /// The local web page
    #[command(hide = true)]
    Dashboard(Later),
    /// Log in at a provider
    #[command(hide = true)]
    Login(Later),
    /// Prove injection through each client
    #[command(hide = true)]
    Verify(Later),
    /// The manual page, or all of them into a directory
    Man(Man),
    /// Enrol an instance
    #[command(hide = true)]
    Enroll(Later),
}

/// Whatever stands after a command that is not built yet.
#[derive(Debug, Args)]
pub struct Later {
    /// Taken and ignored
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    pub rest: Vec<OsString>,
}

const WHY_EXAMPLES: &str = "\
Examples:
  keyferry why coder GET https://api.github.com/repos/acme/site/issues
  keyferry why coder CONNECT https://docs.example.org
Asks the running daemon, which knows the state of its profiles; without one, or with --config, the files.";

/// `why`.
#[derive(Debug, Args)]
pub struct Why {
    /// The agent's name
    pub agent: String,
    /// The method, CONNECT for a tunnel
    pub method: String,
    /// The whole URL
    pub url: String,
}

/// `config test`.
#[derive(Debug, Args)]
pub struct ConfigTest {
    /// Files of tests; keyferry.test.yaml beside the configuration when left out
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

const RUN_EXAMPLES: &str = "\
Examples:
  keyferry run -- claude
  keyferry run --agent coder -- python agent.py
  ANTHROPIC_API_KEY=... keyferry run -- python agent.py     nothing stored: the variable is the credential";

const SERVE_EXAMPLES: &str = "\
Examples:
  keyferry serve                              stops on SIGTERM or Ctrl-C, reloads on SIGHUP
  keyferry agent create coder                 a token for an agent, shown once
  eval \"$(keyferry env --agent coder)\"        or a session token, as variables for this shell";

const AGENT_EXAMPLES: &str = "\
Examples:
  keyferry agent create coder
  keyferry agent list";

const ENV_EXAMPLES: &str = "\
Examples:
  eval \"$(keyferry env --agent coder)\"
  keyferry env --agent coder --format fish | source
  keyferry env --agent coder --ttl 2h --format docker > agent.env && docker run --network host --env-file agent.env ..";

/// `run`.
#[derive(Debug, Args)]
pub struct Run {
    /// Who the process is, for policy, placeholders and the log
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub agent: String,
    /// Also give the process a network with nothing in it but the proxy (Linux)
    #[arg(long, value_name = "HOW", num_args = 0..=1, require_equals = true, default_missing_value = "full", hide_possible_values = true)]
    pub lock: Option<Lock>,
    /// With --lock: let the process reach this port of 127.0.0.1 too, a local service's
    #[arg(long, value_name = "PORT", requires = "lock")]
    pub allow_local: Vec<u16>,
    /// Let the process see Keyferry's home and processes, as sudo and other users' files may need it to
    #[arg(long, conflicts_with = "lock")]
    pub no_guard: bool,
    /// Start a proxy of its own even if the home's daemon runs
    #[arg(long)]
    pub no_daemon: bool,
    /// Leave the caller's variable K as it is, though it usually holds a key
    #[arg(long, value_name = "K")]
    pub pass_env: Vec<String>,
    /// The command and its arguments
    #[arg(trailing_var_arg = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// How a process is locked in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Lock {
    /// A network of its own.
    Full,
    /// Less, where namespaces are refused (not available yet).
    Partial,
}

/// `init`.
#[derive(Debug, Args)]
pub struct Init {
    /// Start from another template (not available yet)
    #[arg(long, value_name = "T", hide = true)]
    pub template: Option<String>,
    /// Also make the vault, one whose values `secret reveal` may show; an existing vault never becomes one
    #[arg(long)]
    pub allow_reveal: bool,
    /// Replace an existing configuration
    #[arg(long)]
    pub yes: bool,
}

/// `profile ..`.
#[derive(Debug, Subcommand)]
pub enum Profile {
    /// List all profiles: ready, cooling (until when and why), disabled
    List,
    /// End a profile's cooldown
    Reset(ProfileName),
    /// Use a profile no more until it is enabled
    Disable(ProfileName),
    /// Use a profile again
    Enable(ProfileName),
    /// Call the provider's cheap endpoint with a profile
    Test(ProfileName),
}

/// A profile's name.
#[derive(Debug, Args)]
pub struct ProfileName {
    /// `provider:name`
    pub profile: String,
}

/// `agent ..`.
#[derive(Debug, Subcommand)]
pub enum Agent {
    /// Create an agent, or one more token for it; the token is shown once
    Create(AgentName),
    /// List all agents
    List,
    /// Replace an agent's tokens by a new one
    Rotate(AgentChange),
    /// Take an agent's tokens away
    Revoke(AgentChange),
}

/// An agent's name.
#[derive(Debug, Args)]
pub struct AgentName {
    /// Its name: letters, digits and . _ ~ -
    pub name: String,
}

/// A change to an agent that ends its present tokens.
#[derive(Debug, Args)]
pub struct AgentChange {
    /// Its name
    pub name: String,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// `env`.
#[derive(Debug, Args)]
pub struct Env {
    /// Who the process is
    #[arg(long, value_name = "NAME")]
    pub agent: String,
    /// How long its session token lives: 30m, 12h, 7d
    #[arg(long, value_name = "TIME", default_value = "12h")]
    pub ttl: String,
    /// For whom it is written
    #[arg(long, value_enum, default_value = "sh")]
    pub format: EnvFormat,
    /// Leave the caller's variable K as it is, though it usually holds a key
    #[arg(long, value_name = "K")]
    pub pass_env: Vec<String>,
}

/// The forms of `env`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EnvFormat {
    /// Any POSIX shell: eval "$(..)"
    Sh,
    /// fish: .. | source
    Fish,
    /// One JSON object
    Json,
    /// A .env file
    Dotenv,
    /// A file for docker run --env-file
    Docker,
}

/// `config ..`.
#[derive(Debug, Subcommand)]
pub enum Config {
    /// Validate everything without listening; every fault at once
    Check,
    /// The configuration in effect, defaults included
    Show,
    /// The JSON Schema of keyferry.yaml
    Schema,
    /// What differs: the daemon from the file, or a file from another. Ends with 1 where something does
    Diff(ConfigDiff),
    /// Hold the rules against a file of requests and what should become of them; ends with 1 where one differs
    Test(ConfigTest),
}

/// `ca ..`.
#[derive(Debug, Subcommand)]
pub enum Ca {
    /// Subject, constraints, fingerprint and end of the certificate
    Show,
    /// The path of the certificate
    Path(CaPath),
    /// Put it into the system's trust store: for programs that take no certificate from a variable
    Trust(CaTrust),
    /// Take it out of the system's trust store
    Untrust(CaTrust),
    /// Make a new one; programs that run with the old one have to be started again
    Rotate(CaRotate),
}

/// `ca trust`, `ca untrust`.
#[derive(Debug, Args)]
pub struct CaTrust {
    /// Change the system's trust store, which every program of every user reads
    #[arg(long)]
    pub system: bool,
}

/// `ca rotate`.
#[derive(Debug, Args)]
pub struct CaRotate {
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// `config diff`.
#[derive(Debug, Args)]
pub struct ConfigDiff {
    /// A file instead of the home's, or two files to compare
    #[arg(value_name = "FILE", num_args = 0..=2)]
    pub files: Vec<PathBuf>,
}

/// `man`.
#[derive(Debug, Args)]
pub struct Man {
    /// Write a page for each command into this directory
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// `ca path`.
#[derive(Debug, Args)]
pub struct CaPath {
    /// The bundle of the system's roots and this certificate instead
    #[arg(long)]
    pub bundle: bool,
}

/// `provider ..`.
#[derive(Debug, Subcommand)]
pub enum Provider {
    /// List all providers, the configuration's own included
    List,
    /// One provider: hosts, kinds of credentials, variables
    Show(ProviderName),
}

/// A provider's name.
#[derive(Debug, Args)]
pub struct ProviderName {
    /// Its name
    pub name: String,
}

/// `scan`.
#[derive(Debug, Args)]
pub struct Scan {
    /// Files and directories; links are not followed, and what is compressed is not looked into
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<PathBuf>,
}

/// `explain`.
#[derive(Debug, Args)]
pub struct Explain {
    /// The code, `policy_denied` say; all of them when left out
    pub code: Option<String>,
}

/// `completion`.
#[derive(Debug, Args)]
pub struct Completion {
    /// Which shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_tree_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn everything_after_the_command_of_run_is_the_commands() {
        let words = ["keyferry", "run", "--agent", "coder", "--", "env", "--json", "-q", "--", "--home"];
        let Command::Run(run) = Cli::try_parse_from(words).unwrap().command else { panic!() };
        assert_eq!(run.command, ["env", "--json", "-q", "--", "--home"]);
        let cli = Cli::try_parse_from(["keyferry", "run", "env", "--json"]).unwrap();
        assert!(!cli.global.json);
        for words in [["keyferry", "run", "--agnet", "coder"], ["keyferry", "run", "--nosuch", "claude"]] {
            let error = Cli::try_parse_from(words).unwrap_err();
            assert_eq!(error.kind(), clap::error::ErrorKind::UnknownArgument, "a slip is not taken for the command");
        }
    }

    #[test]
    fn global_options_stand_before_or_after_a_command() {
        for words in [["keyferry", "--json", "secret", "list"], ["keyferry", "secret", "list", "--json"]] {
            assert!(Cli::try_parse_from(words).unwrap().global.json);
        }
    }

    #[test]
    fn what_is_not_built_takes_any_arguments() {
        for words in ["doctor", "logs -f --filter x", "vault migrate --to x", "audit verify", "admin token create x"] {
            let words = std::iter::once("keyferry").chain(words.split(' '));
            assert!(Cli::try_parse_from(words).is_ok());
        }
    }
}
