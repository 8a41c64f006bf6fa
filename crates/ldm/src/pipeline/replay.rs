//! A pass through a U-Net's blocks, recorded once and replayed on new inputs.

use std::cell::RefCell;
use std::rc::Rc;

use burn::tensor::{DType, Device, Graph, Tensor, capture};
use ldm_unet::{Prepared, UNet, write_in_place};

/// What a recorded pass reads anew each time, in buffers of its own.
struct Inputs {
    /// `[b, in_channels, h, w]`.
    x: Tensor<4>,
    /// `[b, width]`.
    time: Tensor<2>,
    /// Keys and values of the context.
    prepared: Prepared,
}

type Pass<'a> = Box<dyn FnMut() -> Tensor<4> + 'a>;

/// The launches of [`UNet::run_blocks`].
///
/// Labels, sinusoids and whatever else comes from the host are in the inputs already: launches are recorded, copies are
/// not. `Rc` keeps a recording on its thread, to whose stream it belongs.
pub(super) struct Replay<'a> {
    graph: Graph<Tensor<4>, Pass<'a>>,
    inputs: Rc<RefCell<Inputs>>,
}

impl<'a> Replay<'a> {
    /// Records a pass on inputs of these shapes and types; burn makes three others before it. Where the device records
    /// nothing, [`is_hardware`](Self::is_hardware) says so.
    pub fn record(unet: &'a UNet, prepared: &Prepared, x: &Tensor<4>, time: &Tensor<2>) -> Self {
        let mut inputs = Inputs { x: memory(x), time: memory(time), prepared: prepared.copied() };
        write_in_place(&mut inputs.x, x);
        write_in_place(&mut inputs.time, time);
        let inputs = Rc::new(RefCell::new(inputs));
        let read = Rc::clone(&inputs);
        let pass: Pass<'a> = Box::new(move || {
            let inputs = read.borrow();
            unet.run_blocks(inputs.x.clone(), &inputs.time, &inputs.prepared)
        });
        Self { graph: capture(&x.device(), pass), inputs }
    }

    /// Whether a run is one replay; otherwise it is the pass itself.
    pub fn is_hardware(&self) -> bool {
        self.graph.is_hardware()
    }

    /// Whether inputs are of the shapes and types that were recorded.
    pub fn fits(&self, x: &Tensor<4>, time: &Tensor<2>) -> bool {
        let inputs = self.inputs.borrow();
        let x_fits = inputs.x.dims() == x.dims() && inputs.x.dtype() == x.dtype();
        x_fits && inputs.time.dims() == time.dims() && inputs.time.dtype() == time.dtype()
    }

    /// Puts other conditions in the place of the last; false where they don't fit or can't be written, and then the
    /// recording is of no more use.
    pub fn condition(&mut self, prepared: &Prepared) -> bool {
        self.inputs.borrow_mut().prepared.overwrite(prepared)
    }

    /// The pass on other inputs of the same shapes and types; `None` where the recorded memory can't be written.
    pub fn run(&mut self, x: &Tensor<4>, time: &Tensor<2>) -> Option<Tensor<4>> {
        {
            let mut inputs = self.inputs.borrow_mut();
            // What is written to a tensor that others hold goes to a copy, which the recording does not read.
            if self.is_hardware() && !(inputs.x.can_mut() && inputs.time.can_mut()) {
                return None;
            }
            write_in_place(&mut inputs.x, x);
            write_in_place(&mut inputs.time, time);
        }
        // SAFETY:
        // Alive: weights are borrowed for 'a, inputs and conditions belong to the closure and to us, the output belongs
        // to the graph, and the backend guards the memory of what comes between as long as the graph lives.
        // Alone: inputs, conditions and output never leave this struct (what is given away is a copy). Weights may be
        // read elsewhere meanwhile, but the pass only reads them too, and tensors that are shared, as they are by the
        // borrow, are never written in place.
        // On one stream: `Rc` keeps us on the thread that recorded, which issues the writes above, the replay and the
        // copy below in this order. A run calls nothing that would change the thread's stream in between.
        let output = unsafe { self.graph.replay() };
        // The next replay writes over it, and samplers keep earlier predictions.
        Some(output.clone() * 1.0)
    }
}

/// Whether the device can record launches: asked by recording one.
pub(super) fn is_supported(device: &Device) -> bool {
    let x = Tensor::<1>::zeros([1], (device, DType::F32));
    capture(device, move || x.clone() + 1.0).is_hardware()
}

/// Memory of its own for a tensor like this one.
fn memory<const D: usize>(like: &Tensor<D>) -> Tensor<D> {
    Tensor::zeros(like.dims(), (&like.device(), like.dtype()))
}

#[cfg(test)]
mod tests;
