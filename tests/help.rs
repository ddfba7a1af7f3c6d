//! Completions and manual pages come from the commands themselves, and are what their readers take.

#![cfg(test)]

use std::{
    fs,
    process::{Command, Output},
};

fn hallpass(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hallpass")).args(arguments).output().unwrap()
}

#[test]
fn bash_completes_commands_by_what_it_is_told() {
    let script = hallpass(&["completions", "bash"]);
    assert!(script.status.success(), "{script:?}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hallpass.bash");
    fs::write(&file, &script.stdout).unwrap();
    let ask = "source \"$0\"; COMP_WORDS=(hallpass led); COMP_CWORD=1; _hallpass hallpass led hallpass; echo \"${COMPREPLY[@]}\"";

    let completed = Command::new("bash").args(["-c", ask]).arg(&file).output().unwrap();

    assert_eq!(String::from_utf8(completed.stdout).unwrap().trim(), "ledger");
}

#[test]
fn every_shell_has_completions() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = hallpass(&["completions", shell]);
        assert!(script.status.success() && script.stdout.len() > 1_000, "{shell}");
    }
}

#[test]
fn every_command_has_its_page() {
    let folder = tempfile::tempdir().unwrap();
    let written = hallpass(&["man", "--out", folder.path().to_str().unwrap()]);
    assert!(written.status.success(), "{written:?}");
    let help = String::from_utf8(hallpass(&["--help"]).stdout).unwrap();
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands: Vec<&str> = commands
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|command| *command != "help")
        .collect();
    assert!(commands.contains(&"serve"), "{help}");
    for command in commands {
        let page = fs::read_to_string(folder.path().join(format!("hallpass-{command}.1")));
        let page = page.unwrap_or_else(|fault| panic!("{command}: {fault}"));
        assert!(page.contains(".TH") && page.contains(".SH SYNOPSIS"), "{command}: {page}");
    }
}

#[test]
fn page_of_all_goes_to_stdout() {
    let page = hallpass(&["man"]);
    assert!(String::from_utf8(page.stdout).unwrap().contains(".TH hallpass 1"));
}
