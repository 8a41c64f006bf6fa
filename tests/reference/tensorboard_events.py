"""An event file as TensorBoard's own writer makes it; and, given a path, what its reader finds in that file."""
import sys
from pathlib import Path

from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

if len(sys.argv) > 1:
    for event in EventFileLoader(sys.argv[1]).Load():
        print(event)
    sys.exit()

image = Summary.Image(height=1, width=2, colorspace=3, encoded_image_string=b"PNG")
events = [
    Event(wall_time=1.5, file_version="brain.Event:2"),
    Event(wall_time=2.0, step=300, session_log=SessionLog(status=SessionLog.START)),
    Event(wall_time=2.5, step=301, summary=Summary(value=[
        Summary.Value(tag="loss", simple_value=0.25), Summary.Value(tag="learning_rate", simple_value=1e-4)])),
    Event(wall_time=3.0, step=301, summary=Summary(value=[Summary.Value(tag="samples", image=image)])),
]
path = Path(__file__).resolve().parent.parent / "fixtures" / "tensorboard.tfevents"
with open(path, "wb") as file:
    writer = RecordWriter(file)
    for event in events:
        writer.write(event.SerializeToString())
print(path.name, path.stat().st_size, "bytes")
