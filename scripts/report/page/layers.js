// Volumes of the page: grey slices decoded from JPEG, labels decoded from their symbols. All in [z][y][x] order.

const pause = () => new Promise((resolve) => setTimeout(resolve));

function layerOf(described, Kind) {
  const [nz, ny, nx] = described.shape;
  return { nz, ny, nx, binning: described.binning, data: new Kind(nz * ny * nx), ready: new Uint8Array(nz), count: 0 };
}

const imageLayer = page.image ? layerOf(page.image, Uint8Array) : null;
const mapLayer = page.center ? layerOf(page.center, Uint8Array) : null;
const labelLayer = page.labels ? layerOf(page.labels, page.labels.maxLabel > 65535 ? Uint32Array : Uint16Array) : null;

// Decode the slice nearest to where the reader is, again and again, so that scrubbing never waits for the whole volume.
async function decodeSlices(layer, blobName, wanted, progress) {
  const lines = blobLines(blobName);
  const canvas = document.createElement("canvas");
  canvas.width = layer.nx;
  canvas.height = layer.ny;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  while (layer.count < layer.nz) {
    const near = Math.min(layer.nz - 1, Math.max(0, wanted(layer)));
    let z = near;
    for (let d = 0; layer.ready[z]; d++) {
      if (near + d < layer.nz && !layer.ready[near + d]) z = near + d;
      else if (near - d >= 0 && !layer.ready[near - d]) z = near - d;
    }
    const bitmap = await createImageBitmap(new Blob([bytesOf(lines[z])], { type: "image/jpeg" }));
    context.drawImage(bitmap, 0, 0);
    bitmap.close();
    const rgba = context.getImageData(0, 0, layer.nx, layer.ny).data;
    const start = z * layer.ny * layer.nx;
    for (let i = 0, end = layer.ny * layer.nx; i < end; i++) layer.data[start + i] = rgba[4 * i];
    layer.ready[z] = 1;
    layer.count++;
    lines[z] = "";
    progress(z);
  }
  $("blob-" + blobName).remove();
}

// Undo encode_labels of images.py: 0 as x - 1, 1 as y - 1, 2 as z - 1, 3 the next value.
async function decodeLabels(layer, progress) {
  const [symbolText, valueText] = blobLines("labels");
  const symbols = await inflate(bytesOf(symbolText));
  const values = new Uint32Array((await inflate(bytesOf(valueText))).buffer);
  const { nx, ny, nz, data } = layer;
  let next = 0, i = 0;
  for (let z = 0; z < nz; z++) {
    for (let y = 0; y < ny; y++) {
      for (let x = 0; x < nx; x++, i++) {
        const symbol = symbols[i];
        if (symbol === 0) data[i] = x > 0 ? data[i - 1] : 0;
        else if (symbol === 1) data[i] = y > 0 ? data[i - nx] : 0;
        else if (symbol === 2) data[i] = z > 0 ? data[i - nx * ny] : 0;
        else data[i] = values[next++];
      }
    }
    layer.ready[z] = 1;
    layer.count++;
    if (z % 8 === 7) { progress(z); await pause(); }
  }
  $("blob-labels").remove();
  progress(nz - 1);
}

// Axes: 0 z, 1 y, 2 x. A plane shows (row axis, column axis) while its own axis is scrubbed.
const PLANES = { z: [0, 1, 2], y: [1, 0, 2], x: [2, 0, 1] };

function planeOf(layer, plane, voxel) {
  const [axis, rowAxis, columnAxis] = PLANES[plane];
  const size = [layer.nz, layer.ny, layer.nx];
  const stride = [layer.ny * layer.nx, layer.nx, 1];
  const index = Math.min(size[axis] - 1, Math.floor(voxel / layer.binning[axis]));
  const nv = size[rowAxis], nu = size[columnAxis];
  const out = new layer.data.constructor(nu * nv);
  for (let v = 0, k = 0; v < nv; v++) {
    let i = index * stride[axis] + v * stride[rowAxis];
    for (let u = 0; u < nu; u++, i += stride[columnAxis]) out[k++] = layer.data[i];
  }
  return { data: out, nu, nv, stepU: layer.binning[columnAxis], stepV: layer.binning[rowAxis] };
}
