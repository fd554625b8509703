//! The exit codes, each a constant with its meaning.

/// The command did what was asked.
pub(crate) const SUCCESS: u8 = 0;
/// The experiment, the command line or a file that they name is wrong; nothing was run.
pub(crate) const INPUT: u8 = 2;
/// A stage failed or was skipped, or a cell of the table is missing.
pub(crate) const STAGE: u8 = 3;
/// The cache is corrupt or cannot be used.
pub(crate) const CACHE: u8 = 4;
/// The program could not read, write or start something.
pub(crate) const IO: u8 = 5;
/// The user interrupted the run: 128 and the number of SIGINT, as shells have it.
pub(crate) const INTERRUPTED: u8 = 130;

/// All codes with their meanings, as `pipeline --help` and `docs/commands.md` list them.
pub(crate) const ALL: [(u8, &str); 6] = [
    (SUCCESS, "done"),
    (
        INPUT,
        "the experiment, the command line or a file that they name is wrong, or a result that is asked for has \
         not been made; nothing was run",
    ),
    (STAGE, "a stage failed or was skipped, or a cell of the table is missing"),
    (
        CACHE,
        "the cache is corrupt, has another format, is read-only where a stage must run, or cannot be used",
    ),
    (
        IO,
        "the program could not write its output, or the system refused to read, write or start something; \
         finished results are kept",
    ),
    (INTERRUPTED, "interrupted"),
];

/// Returns the table of exit codes for `pipeline --help`.
pub(crate) fn help() -> String {
    let lines: Vec<String> = ALL.iter().map(|(code, meaning)| format!("  {code:<3}  {meaning}")).collect();
    format!("Exit codes:\n{}", lines.join("\n"))
}
