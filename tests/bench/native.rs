//! The native side of `npm run bench`: measures what it is asked to on its standard input, one operation a line.
//!
//! `search serve SET [ISA]`, or `search rows ARROW OUT`: the unit vectors of a dataset's embedding, as f32.
#![expect(clippy::disallowed_methods, clippy::disallowed_types, reason = "a benchmark reads the clock and files")]
#![expect(clippy::print_stdout, reason = "its answers go to standard output")]

mod suite;

use std::io::{BufRead as _, Write as _};
use std::time::Instant;

use arrow_array::cast::AsArray as _;
use arrow_array::types::Int8Type;
use eddydb::distance::{Kernels, kernels};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["rows", from, to] => write_rows(from, to),
        ["serve", set] => serve(set),
        ["serve", set, isa] => {
            let named = Kernels::available().iter().find(|kernels| format!("{:?}", kernels.isa()) == isa);
            named.unwrap_or_else(|| panic!("this processor has no {isa}")).choose().expect("nothing was measured yet");
            serve(set);
        }
        _ => println!("run by: npm run bench"),
    }
}

/// Answers `OPERATION ARGUMENT MILLISECONDS` with `RESULT SECONDS`: the mean of as many runs as fit into the time, at least one, in
/// seconds of the processor, where the system tells them, so that waiting for it does not count.
fn serve(set: &str) {
    let mut suite = suite::Suite::new(&std::fs::read(set).expect("the set is there"));
    println!("{:?} {} {}", kernels().isa(), suite.row_count(), suite.query_count());
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("the host writes lines");
        let mut words = line.split(' ');
        let operation = words.next().expect("a line has a first word");
        let mut number = || words.next().and_then(|word| word.parse::<usize>().ok()).expect("a number");
        let (argument, milliseconds) = (number(), number());
        let mut result = 0.0;
        let (mut runs, mut seconds) = (0.0, 0.0);
        let (start, processor) = (Instant::now(), processor_seconds());
        while runs == 0.0 || seconds * 1e3 < milliseconds as f64 {
            result = suite.run(operation, argument).max(result);
            runs += 1.0;
            let elapsed = start.elapsed().as_secs_f64();
            seconds = processor_seconds().zip(processor).map_or(elapsed, |(now, then)| now - then);
        }
        let seconds = seconds / runs;
        println!("{result} {seconds}");
        std::io::stdout().flush().expect("the host reads");
    }
}

/// How long this process, which has one thread, has been running on a processor.
fn processor_seconds() -> Option<f64> {
    let told = std::fs::read_to_string("/proc/self/schedstat").ok()?;
    let nanoseconds: u64 = told.split(' ').next()?.parse().ok()?;
    Some(nanoseconds as f64 / 1e9)
}

fn write_rows(from: &str, to: &str) {
    let file = std::fs::File::open(from).expect("the dataset is there");
    let reader = arrow_ipc::reader::FileReader::try_new(file, None).expect("an Arrow file");
    let mut bytes = Vec::new();
    for batch in reader {
        let batch = batch.expect("a record batch");
        let column = batch.column_by_name("embedding").expect("a column named embedding").as_fixed_size_list();
        let values = column.values().as_primitive::<Int8Type>().values();
        for row in values.chunks_exact(column.value_length() as usize) {
            let length = row.iter().map(|&x| f32::from(x).powi(2)).sum::<f32>().sqrt();
            bytes.extend(row.iter().flat_map(|&x| (f32::from(x) / length).to_le_bytes()));
        }
    }
    std::fs::write(to, bytes).expect("room for the rows");
}
