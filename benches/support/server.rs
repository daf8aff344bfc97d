//! A server on loopback that answers at once, as a process of its own: the bench's program once more, with `--serve`.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::fixtures::AtOnce;

/// The server, killed when dropped. It also ends when its standard input does, so it never outlives this process.
pub(crate) struct Server {
    child: Child,
    pub(crate) base_url: String,
}

impl Server {
    pub(crate) fn start() -> std::io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut child = command.arg("--serve").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        let stdout = child.stdout.take().ok_or_else(|| std::io::Error::other("no output of the server"))?;
        BufReader::new(stdout).read_line(&mut line)?;
        Ok(Self { child, base_url: line.trim().to_owned() })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether this process is to be the server.
pub(crate) fn is_wanted() -> bool {
    std::env::args().any(|argument| argument == "--serve")
}

pub(crate) async fn serve() -> std::io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let answers = Arc::new(AtOnce::new().map_err(std::io::Error::other)?);
    println!("http://{}/v1", listener.local_addr()?);
    std::io::stdout().flush()?;
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(0);
    });
    loop {
        let (socket, _) = listener.accept().await?;
        let answers = Arc::clone(&answers);
        tokio::spawn(async move {
            // An error ends the connection, which is all that a stub has to do about it.
            let _ = answer_all(socket, &answers).await;
        });
    }
}

/// Just enough HTTP/1.1 for our own requests: a head, a content length, a body.
async fn answer_all(mut socket: TcpStream, answers: &AtOnce) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let mut buffer: Vec<u8> = Vec::with_capacity(64 * 1024);
    loop {
        let (head, length) = loop {
            if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&buffer[..end]).to_lowercase();
                let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
                break (end + 4, length.unwrap_or(0_usize));
            }
            if socket.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        while buffer.len() < head + length {
            if socket.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
        let request = &buffer[head..head + length];
        let count = request.windows(9).filter(|window| *window == b"<item id=").count();
        let body = answers.body(count, request.windows(11).any(|window| window == b"\"logprobs\":"));
        buffer.drain(..head + length);
        let head =
            format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
        socket.write_all(&[head.as_bytes(), &body].concat()).await?;
    }
}
