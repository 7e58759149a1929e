// What an answer of the server holds, and the pixels that are painted of it.

const RAMP = [[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]];

/** Class numbers and probabilities (0..255) of all pixels, with the share and mean probability of each class. */
export function readAnswer(buffer, pixels, classes) {
  const wide = classes > 254;
  const numbers = wide ? new Uint16Array(buffer, 0, pixels) : new Uint8Array(buffer, 0, pixels);
  const probability = new Uint8Array(buffer, (wide ? 2 : 1) * pixels, pixels);
  const count = new Float64Array(classes);
  const sum = new Float64Array(classes);
  for (let i = 0; i < pixels; i++) {
    count[numbers[i]] += 1;
    sum[numbers[i]] += probability[i];
  }
  const of = (c) => ({ number: c, share: count[c] / pixels, sure: count[c] ? sum[c] / count[c] / 255 : 0 });
  return { numbers, probability, classes: Array.from({ length: classes }, (_, c) => of(c)) };
}

/** Colours of the classes; of one alone where it is chosen, the rest left clear. */
export function paintClasses(answer, colors, width, height, chosen) {
  const table = new Uint32Array(new Uint8Array(colors.flatMap(([r, g, b]) => [r, g, b, 255])).buffer);
  return painted(width, height, (i) => (chosen === null || answer.numbers[i] === chosen ? table[answer.numbers[i]] : 0));
}

/** Probabilities of the classes that were decided on, dark to light. */
export function paintConfidence(answer, width, height, chosen) {
  const table = new Uint32Array(ramp().buffer);
  return painted(width, height, (i) => (chosen === null || answer.numbers[i] === chosen ? table[answer.probability[i]] : 0));
}

/** RGBA of 256 steps. */
export function ramp() {
  const colors = new Uint8Array(1024);
  for (let step = 0; step < 256; step++) {
    const place = (step / 255) * (RAMP.length - 1);
    const low = Math.min(RAMP.length - 2, Math.floor(place));
    for (let c = 0; c < 3; c++) {
      colors[4 * step + c] = Math.round(RAMP[low][c] + (place - low) * (RAMP[low + 1][c] - RAMP[low][c]));
    }
    colors[4 * step + 3] = 255;
  }
  return colors;
}

function painted(width, height, color) {
  const image = new ImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  for (let i = 0; i < pixels.length; i++) pixels[i] = color(i);
  return image;
}
