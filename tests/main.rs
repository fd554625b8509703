//! Stories: the real binary, on small experiments in temporary houses.

mod cases {
    mod cache;
    mod commands;
    mod data;
    mod evaluation;
    mod failures;
    mod fcd;
    mod house;
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
    mod training;
    mod valid;
}
mod lab;
