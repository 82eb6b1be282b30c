//! Starting servers inside shards.

use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use super::Engine;
use crate::calibrate::{PathCalibration, calibrate_paths};
use crate::error::{OpenError, ServeError};
use crate::handle::Remote;
use crate::limits::SERVICE_STOP_MS;
use crate::serve::{Local, ServiceHandle};
use crate::shard::net::{Service, Services, Stop};

impl Engine {
    /// How fast sealed segments go to sockets here, and the ways chosen by it. The first call for a data directory
    /// measures it, which takes 100 milliseconds; [`Engine::serve`] makes it.
    ///
    /// # Errors
    /// [`OpenError::Io`] if sockets or a file for the trial cannot be made.
    pub fn read_paths(&self) -> Result<PathCalibration, OpenError> {
        if let Some(known) = self.paths.get() {
            return Ok(*known);
        }
        let found = calibrate_paths(&self.config)?;
        Ok(*self.paths.get_or_init(|| found))
    }

    /// Runs a server inside a shard: `server` is called on the shard's thread, and its future, which need not be
    /// `Send`, polled there. It ends when the future and all tasks started by [`Local::spawn`] have. [`Engine::close`]
    /// stops it and gives it [`SERVICE_STOP_MS`].
    ///
    /// A panic in it ends the task that panicked and no other; one in the engine's own code ends the shard.
    ///
    /// # Errors
    /// [`ServeError::NoShard`], [`ServeError::Calibration`].
    pub fn serve<S, F, T>(&self, shard: usize, server: S) -> Result<ServiceHandle<T>, ServeError>
    where
        S: FnOnce(Local) -> F + Send + 'static,
        F: Future<Output = T> + 'static,
        T: Send + 'static,
    {
        let shards = self.workers.len();
        let worker = self.workers.get(shard).ok_or(ServeError::NoShard { asked: shard, shards })?;
        let paths = self.read_paths().map_err(|e| ServeError::Calibration(e.to_string()))?;
        let (homes, stop) = (self.partitions.clone(), Stop::new());
        let remotes: Vec<Remote> = self.workers.iter().map(|w| w.remote.clone()).collect();
        let shared = stop.clone();
        let reply = worker.remote.call(move |cx| {
            let service = Service::new(shared, paths.in_force());
            let local = Local::new(cx.clone(), Rc::clone(&service), shard, homes, remotes.into());
            service.run(cx, async move { server(local).await })
        });
        Ok(ServiceHandle::new(worker.remote.clone(), stop, reply))
    }

    /// Runs a server inside every shard: one that listens at a TCP address shares it with the others, and the kernel
    /// spreads the connections. Handles are in the order of the shards.
    ///
    /// # Errors
    /// [`ServeError::Calibration`].
    pub fn serve_all<S, F, T>(&self, server: S) -> Result<Vec<ServiceHandle<T>>, ServeError>
    where
        S: FnOnce(Local) -> F + Send + Clone + 'static,
        F: Future<Output = T> + 'static,
        T: Send + 'static,
    {
        (0..self.workers.len()).map(|shard| self.serve(shard, server.clone())).collect()
    }

    /// Ends the servers of all shards.
    pub(super) fn stop_services(&self) {
        let within = Duration::from_millis(SERVICE_STOP_MS);
        let replies: Vec<_> = self
            .workers
            .iter()
            .map(|worker| worker.remote.call(move |cx| Services::stop_all(cx, within)))
            .collect();
        // A shard that is gone has none.
        for reply in replies {
            let _gone_or_done = reply.wait();
        }
    }
}
