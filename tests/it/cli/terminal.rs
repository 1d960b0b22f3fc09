//! At a terminal: the child has it, Ctrl-C reaches the child, and a value that is typed is not shown.

use std::io::Write;
use std::process::{ChildStdin, Command, Stdio};

use crate::harness::{Canary, Home, PATIENCE, Stream, Tool, need, wait};

/// A line of a shell at a pseudo-terminal, its output as it comes and its keyboard.
struct Terminal<'a> {
    home: &'a Home,
    child: std::process::Child,
    keys: ChildStdin,
    screen: Stream,
}

impl<'a> Terminal<'a> {
    fn open(home: &'a Home, line: &str) -> Option<Self> {
        let script = need("terminal", Tool::Script)?;
        let program = home.keyferry(&[]);
        // With `exec`, no shell stands between the keyboard and the program.
        let line = line.replace("keyferry", program.get_program().to_str().unwrap());
        let mut command = Command::new(script);
        command.args(["-qefc", &line, "/dev/null"]);
        command.env_clear().current_dir(home.work_dir());
        command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.env("SHELL", "/bin/sh").env("TERM", "xterm");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let screen = Stream::of(child.stdout.take().unwrap());
        let keys = child.stdin.take().unwrap();
        Some(Self { home, child, keys, screen })
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }

    /// The exit code, and all that stood on the screen.
    fn end(mut self) -> (Option<i32>, String) {
        let status = wait(&mut self.child, PATIENCE).expect("the command at the terminal ends");
        drop(self.keys);
        let text = self.screen.whole();
        self.home.observe("the terminal", text.as_bytes());
        (status.code(), text)
    }
}

#[test]
fn the_child_has_the_terminal() {
    let home = Home::empty();
    let Some(mut terminal) = Terminal::open(&home, "exec keyferry run -- sh -c 'tty; read -r word; echo \"<$word>\"'")
    else {
        return;
    };
    terminal.screen.line_with("/dev/");
    terminal.press("hello\n");
    let (code, text) = terminal.end();
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("<hello>"), "{text}");
}

#[test]
fn an_interrupt_from_the_keyboard_is_the_childs() {
    let home = Home::empty();
    for (script, code) in
        [("echo ready; exec sleep 60", 130), ("trap \"echo caught; exit 7\" INT; echo ready; sleep 60 & wait", 7)]
    {
        let Some(mut terminal) = Terminal::open(&home, &format!("exec keyferry run -- sh -c '{script}'")) else {
            return;
        };
        terminal.screen.line_with("ready");
        terminal.press("\x03");
        let (ended, text) = terminal.end();
        assert_eq!(ended, Some(code), "{text}");
        assert!(text.contains("keyferry: 0 requests"), "the proxy ends in order: {text}");
    }
}

#[test]
fn a_typed_value_is_not_shown() {
    let home = Home::empty();
    let canary = Canary::anthropic();
    home.guard(&canary);
    let Some(mut terminal) = Terminal::open(&home, "exec keyferry secret set anthropic:work") else { return };
    terminal.screen.shows("not shown");
    terminal.press(&format!("{}\n", canary.as_str()));
    let (code, text) = terminal.end();
    assert_eq!(code, Some(0), "{text}");
    let listed = home.command(&["secret", "list", "--json"]).json();
    assert_eq!(listed[0]["name"], "anthropic:work");
    // Ctrl-C at the question ends the command, stores nothing, and leaves a terminal that shows again what is typed.
    let Some(mut terminal) = Terminal::open(&home, "keyferry secret set openai:work; stty -a | grep -o ' -*echo '")
    else {
        return;
    };
    terminal.screen.shows("not shown");
    terminal.press("half\x03");
    let (_, text) = terminal.end();
    assert!(text.contains(" echo ") && !text.contains("half"), "{text}");
    assert_eq!(home.command(&["secret", "list", "--json"]).json().as_array().unwrap().len(), 1);
    // What is typed is asked for no second time, and a question is answered with one key and return.
    let Some(mut terminal) = Terminal::open(&home, "exec keyferry secret delete anthropic:work") else { return };
    terminal.screen.shows("[y/N]");
    terminal.press("n\n");
    assert_eq!(terminal.end().0, Some(1));
    assert_eq!(home.command(&["secret", "list", "--json"]).json()[0]["name"], "anthropic:work");
}
