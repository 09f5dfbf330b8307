//! Says what a picture shows while the model says it, then prints the boxes in pixels.
//!
//!     caption [--ask QUESTION] [--timeout SECONDS] MODEL.gguf PICTURE.ppm

use kosmos::{Canceller, Event, Model, Picture};
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;
use std::{env, fs, thread};

type Failure = std::boxed::Box<dyn std::error::Error>;

struct Arguments {
    model: String,
    picture: String,
    ask: Option<String>,
    timeout: Option<Duration>,
    stop_after: usize,
}

fn arguments() -> Result<Arguments, Failure> {
    let (mut files, mut ask, mut timeout, mut stop_after) = (Vec::new(), None, None, 0);
    let mut given = env::args().skip(1);
    while let Some(argument) = given.next() {
        let mut value = || given.next().ok_or(format!("{argument}: expected a value"));
        match argument.as_str() {
            "--ask" => ask = Some(value()?),
            "--timeout" => timeout = Some(Duration::from_secs(value()?.parse()?)),
            "--stop-after" => stop_after = value()?.parse()?,
            _ => files.push(argument),
        }
    }
    let [model, picture]: [String; 2] =
        files.try_into().map_err(|_| "usage: caption [--ask QUESTION] [--timeout SECONDS] MODEL.gguf PICTURE.ppm")?;
    Ok(Arguments { model, picture, ask, timeout, stop_after })
}

/// A binary PPM file. Other formats: see README.md.
fn read_ppm(path: &str) -> Result<Picture, Failure> {
    let bytes = fs::read(path).map_err(|error| format!("{path}: {error}"))?;
    let (mut numbers, mut at) = (Vec::new(), 2);
    while numbers.len() < 3 && bytes.starts_with(b"P6") && at < bytes.len() {
        match bytes[at] {
            b'#' => at += bytes[at..].iter().position(|&b| b == b'\n').unwrap_or(bytes.len() - at),
            b'0'..=b'9' => {
                let end = at + bytes[at..].iter().take_while(|b| b.is_ascii_digit()).count();
                numbers.push(std::str::from_utf8(&bytes[at..end])?.parse::<i32>()?);
                at = end;
            }
            _ => at += 1,
        }
    }
    match numbers[..] {
        [width, height, 255] => {
            let pixels = bytes.get(at + 1..).unwrap_or_default();
            let count = width as usize * height as usize * 3;
            let pixels = pixels.get(..count).ok_or(format!("{path}: the picture is cut off"))?.to_vec();
            Ok(Picture { pixels, width, height })
        }
        _ => Err(format!("{path}: not a PPM picture of 8 bits").into()),
    }
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    let canceller = Canceller::new()?;
    if let Some(timeout) = arguments.timeout {
        let canceller = canceller.clone();
        thread::spawn(move || {
            thread::sleep(timeout);
            canceller.cancel();
        });
    }
    let stop = Some(&canceller);
    let picture = read_ppm(&arguments.picture)?;
    let model = Model::load(&arguments.model, stop)?;
    let image = model.encode(&picture, stop)?;

    let mut parts = 0;
    let mut show = |event| {
        if let Event::Text(part) = event {
            print!("{part}");
            let _ = std::io::stdout().flush();
            parts += 1;
            if parts == arguments.stop_after {
                canceller.cancel();
            }
        }
    };
    let answer = model.caption(&image, stop, &mut show)?;
    println!();
    for phrase in &answer.phrases {
        for b in &phrase.boxes {
            println!("{}\t{:.1} {:.1} {:.1} {:.1}", phrase.text, b.x1, b.y1, b.x2, b.y2);
        }
    }
    if let Some(question) = &arguments.ask {
        model.ask(&image, question, stop, &mut show)?;
        println!();
    }
    Ok(())
}

fn main() -> ExitCode {
    match arguments().and_then(|given| run(&given)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => match failure.downcast_ref::<kosmos::Error>() {
            Some(error) if error.cancelled => {
                eprintln!("\ncancelled");
                ExitCode::from(130)
            }
            _ => {
                eprintln!("{failure}");
                ExitCode::FAILURE
            }
        },
    }
}
