//! The binary's parts: command line, configuration, commands. A library so that tests and the fuzz targets can call the
//! loader; nothing else depends on it.
pub mod cli;
pub mod commands;
pub mod config;
pub mod dev;
pub mod doctor;
pub mod exit;
pub mod inspect;
pub mod meter;
pub mod operator;
pub mod running;
pub mod serve;
pub mod telemetry;
pub mod text;
