//! The simulated server on a loopback socket.

use std::future::IntoFuture;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::counts::Counts;
use super::engine::SimulatedEngine;
use super::faults::Faults;
use super::settings::SimulatedServerBuilder;
use super::socket::{Door, Line, router};

/// How long to wait between two tries to listen on a port again that something else holds.
const BETWEEN_BINDS: Duration = Duration::from_millis(20);

/// A **simulated** vLLM server on 127.0.0.1, for tests, examples and load experiments. Not a language model: it picks
/// categories by shared words, see [`testing`](crate::testing).
///
/// It serves `POST /v1/chat/completions`, `POST /v1/completions`, `GET /v1/models`, `GET /health` and `GET /metrics`.
/// It runs on the tokio runtime in which it was started, and ends when it is dropped: its port is closed, its
/// connections are reset.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// use slugline::testing::{Fault, Faults, SimulatedServer};
///
/// let server = SimulatedServer::builder().faults(Faults::none().with(Fault::DropObject, 0.1)).seed(7).start().await?;
/// assert!(server.base_url().ends_with("/v1"));
/// assert_eq!(server.counts().completion_requests(), 0);
/// server.stop().await;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct SimulatedServer {
    engine: SimulatedEngine,
    address: SocketAddr,
    listening: watch::Receiver<bool>,
    task: JoinHandle<()>,
}

impl SimulatedServer {
    /// Settings to start one with; each has a default.
    pub fn builder() -> SimulatedServerBuilder {
        SimulatedServerBuilder::default()
    }

    pub(super) async fn listen(engine: SimulatedEngine, port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let address = listener.local_addr()?;
        let (listening_sender, listening) = watch::channel(true);
        let task = tokio::spawn(serve(engine.clone(), listener, address, listening_sender));
        Ok(Self { engine, address, listening, task })
    }

    /// The base URL for clients: `http://127.0.0.1:PORT/v1`.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The server behind the socket, for looking at it or for asking it directly.
    pub fn engine(&self) -> &SimulatedEngine {
        &self.engine
    }

    /// What it has seen and done so far.
    pub fn counts(&self) -> Counts {
        self.engine.counts()
    }

    /// Sets other faults, which begin to count requests anew.
    pub fn set_faults(&self, faults: Faults) {
        self.engine.set_faults(faults);
    }

    /// Goes down like a process that dies, and returns when it has: connections are reset, new ones refused.
    pub async fn go_down(&self) {
        self.engine.go_down();
        self.wait_until_listening(false).await;
    }

    /// Comes back on the same port like a process that was started again, and returns when it listens.
    pub async fn come_back(&self) {
        self.engine.come_back();
        self.wait_until_listening(true).await;
    }

    async fn wait_until_listening(&self, is_listening: bool) {
        // An error means that the task is gone, and with it the listener.
        let _ = self.listening.clone().wait_for(|now| *now == is_listening).await;
    }

    /// Stops it, and returns when its port is closed.
    pub async fn stop(self) {
        self.go_down().await;
    }
}

impl Drop for SimulatedServer {
    fn drop(&mut self) {
        self.engine.go_down();
        self.task.abort();
    }
}

/// Serves while the engine is up, and closes the port while it is down.
async fn serve(engine: SimulatedEngine, listener: TcpListener, address: SocketAddr, listening: watch::Sender<bool>) {
    let mut up = engine.watch_up();
    let mut listener = Some(listener);
    loop {
        if let Some(listener) = listener.take() {
            let door = Door::new(listener, engine.clone());
            let service = router(engine.clone()).into_make_service_with_connect_info::<Line>();
            // Serving never ends by itself. When the future is dropped, so is the door, and with it all connections.
            tokio::select! {
                _ = axum::serve(door, service).into_future() => {}
                _ = up.wait_for(|up| !up) => {}
            }
        }
        listening.send_replace(false);
        // Cannot fail, since the engine is held here.
        let _ = up.wait_for(|up| *up).await;
        listener = Some(bind_again(address).await);
        listening.send_replace(true);
    }
}

async fn bind_again(address: SocketAddr) -> TcpListener {
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) => {
                tracing::debug!(%address, %error, "simulated server cannot listen again yet");
                tokio::time::sleep(BETWEEN_BINDS).await;
            }
        }
    }
}
