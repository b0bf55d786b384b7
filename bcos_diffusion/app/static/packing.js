// Maps come as base64 of 8-bit or 16-bit integers (payload.py).
function bytesOf(text) {
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return bytes;
}

function unpackMaps(packed) {
  const values = new Int16Array(bytesOf(packed.values).buffer);
  return { values, scale: packed.scale };
}

// A frame is unpacked when it is first looked at.
function unpackFrame(frame) {
  if (!frame.open) {
    frame.open = {
      image: bytesOf(frame.image),
      heat: frame.heat ? bytesOf(frame.heat) : null,
      push: frame.push && unpackMaps(frame.push),
      mass: frame.mass && unpackMaps(frame.mass),
    };
  }
  return frame.open;
}
