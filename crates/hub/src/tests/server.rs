//! As much of the Hub as `candle_datasets::hub` asks for, on this machine.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hf_hub::HFClientBuilder;

use super::fixtures::COMMIT;

/// A server of the parquet branch of `owner/streets`; it answers until the test process ends.
pub(super) struct Server {
    address: String,
    downloads: Arc<AtomicUsize>,
}

impl Server {
    /// Serves files; one without content is listed, and asking for it breaks the connection.
    pub(super) fn start(files: Vec<(&'static str, Option<Vec<u8>>)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let downloads = Arc::new(AtomicUsize::new(0));
        let counter = downloads.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                answer(stream.unwrap(), &files, &counter);
            }
        });
        Self { address, downloads }
    }

    pub(super) fn client(&self) -> HFClientBuilder {
        HFClientBuilder::new().endpoint(&self.address).retry_max_attempts(0)
    }

    /// How many files were sent so far.
    pub(super) fn downloads(&self) -> usize {
        self.downloads.load(Ordering::SeqCst)
    }
}

fn answer(mut stream: TcpStream, files: &[(&'static str, Option<Vec<u8>>)], downloads: &AtomicUsize) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let request = lines.next().unwrap().unwrap();
    while lines.next().is_some_and(|line| !line.unwrap().is_empty()) {}
    let mut words = request.split(' ');
    let (method, path) = (words.next().unwrap(), words.next().unwrap());

    let (status, body) = if path == "/api/datasets/owner/streets/revision/refs%2Fconvert%2Fparquet" {
        let siblings: Vec<_> = files.iter().map(|(file, _)| format!(r#"{{"rfilename":"{file}"}}"#)).collect();
        let siblings = siblings.join(",");
        ("200 OK", format!(r#"{{"id":"owner/streets","sha":"{COMMIT}","siblings":[{siblings}]}}"#).into_bytes())
    } else {
        let file = path.strip_prefix("/datasets/owner/streets/resolve/refs%2Fconvert%2Fparquet/");
        match files.iter().find(|(name, _)| Some(*name) == file) {
            Some((_, Some(bytes))) => {
                downloads.fetch_add(usize::from(method == "GET"), Ordering::SeqCst);
                ("200 OK", bytes.clone())
            }
            Some((_, None)) => return,
            None => ("404 Not Found", Vec::new()),
        }
    };
    let etag = path.replace(|letter: char| !letter.is_ascii_alphanumeric(), "");
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nETag: \"{etag}\"\r\nX-Repo-Commit: {COMMIT}\r\nConnection: close\r\n\r\n",
        body.len()
    )
    .unwrap();
    if method == "GET" {
        stream.write_all(&body).unwrap();
    }
}
