//! Stories: the real binary, on small experiments in temporary houses.

mod cases {
    mod cache;
    mod commands;
    mod data;
    mod evaluation;
    mod exits;
    mod failures;
    mod fcd;
    mod house;
    mod index;
    mod inputs;
    mod interruptions;
    mod invalid;
    mod judging;
    mod keys;
    mod laws;
    mod memory;
    mod models;
    mod preferences;
    mod running;
    mod sharing;
    mod supervision;
    mod terminal;
    mod training;
    mod valid;
}
mod lab;
