//! Models of the hands: a frame that was given away is written once, whoever does it, and before its giver goes on.

use super::hands::Hands;
use super::rig_loom::{Device, model};
use crate::disk::AlignedBuf;
use crate::journal::FrameMem;
use crate::sync::{Arc, Ordering};

fn start(hands: &Arc<Hands>, device: &Arc<Device>) -> loom::thread::JoinHandle<()> {
    let (hands, device) = (Arc::clone(hands), Arc::clone(device));
    loom::thread::spawn(move || hands.run(&*device))
}

/// Gives so many frames away, one after the other.
fn give(hands: &Hands, device: &Device, frames: u64) {
    let mem = Arc::new(FrameMem { lsn: 0, buf: AlignedBuf::new() });
    for _ in 0..frames {
        let before = device.busy.load(Ordering::Relaxed);
        if let Some(job) = hands.give(0, &mem) {
            hands.finish(&job, device).unwrap();
            assert_eq!(device.busy.load(Ordering::Relaxed), before + 1, "its giver went on");
        }
    }
}

#[test]
fn loom_a_frame_given_to_a_hand_is_written_once_before_its_giver_goes_on() {
    model(3, || {
        let hands = Arc::new(Hands::default());
        let device = Arc::new(Device::default());
        let hand = start(&hands, &device);
        give(&hands, &device, 2);
        hands.stop();
        hand.join().unwrap();
    });
}

/// The log ends in the middle of it: no frame is left behind, and no hand stays.
#[test]
fn loom_hands_that_are_stopped_leave_no_frame_behind() {
    model(3, || {
        let hands = Arc::new(Hands::default());
        let device = Arc::new(Device::default());
        let hand = start(&hands, &device);
        let stopper = {
            let hands = Arc::clone(&hands);
            loom::thread::spawn(move || hands.stop())
        };
        give(&hands, &device, 1);
        hand.join().unwrap();
        stopper.join().unwrap();
    });
}
