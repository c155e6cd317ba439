// What a job's events add up to, within bounds: curves that are thinned out in place, and the latest messages.

const MOST_POINTS = 1500; // more than a screen has columns
const MOST_EVENTS = 400;
const CURVES = ["train_loss", "learning_rate", "memory_bytes", "tokens_per_second", "gradient_norm"];

/** A curve over steps. Beyond `most` points, neighbours become one: the mean of both, at the later step. */
export class Curve {
  constructor(names, most = MOST_POINTS) {
    this.names = names;
    this.most = most;
    this.steps = [];
    this.values = names.map(() => []);
    this.stride = 1; // reported points in one that is kept
    this.pending = null;
  }

  add(step, data) {
    this.forgetFrom(step); // an attempt that goes on from a checkpoint repeats some steps
    const values = this.names.map((name) => data[name] ?? null);
    const { pending } = this;
    if (pending === null) this.pending = { step, values, count: 1 };
    else {
      pending.step = step;
      pending.values = pending.values.map((value, i) => mean(value, pending.count, values[i], 1));
      pending.count += 1;
    }
    if (this.pending.count >= this.stride) this.keep();
  }

  /** `[steps, values…]`, the last point included however new it is. */
  get data() {
    const { pending } = this;
    if (pending === null) return [[...this.steps], ...this.values.map((one) => [...one])];
    return [[...this.steps, pending.step], ...this.values.map((one, i) => [...one, pending.values[i]])];
  }

  keep() {
    const { step, values } = this.pending;
    this.steps.push(step);
    this.values.forEach((one, i) => one.push(values[i]));
    this.pending = null;
    if (this.steps.length > this.most) this.halve();
  }

  halve() {
    const half = Math.floor(this.steps.length / 2);
    for (let i = 0; i < half; i += 1) {
      this.steps[i] = this.steps[2 * i + 1];
      for (const one of this.values) one[i] = mean(one[2 * i], 1, one[2 * i + 1], 1);
    }
    const isOdd = this.steps.length % 2;
    if (isOdd) this.pending = { step: this.steps.at(-1), values: this.values.map((one) => one.at(-1)), count: this.stride };
    this.steps.length = half;
    for (const one of this.values) one.length = half;
    this.stride *= 2;
  }

  forgetFrom(step) {
    if (this.pending !== null && this.pending.step >= step) this.pending = null;
    while (this.steps.length && this.steps.at(-1) >= step) {
      this.steps.pop();
      for (const one of this.values) one.pop();
    }
  }
}

function mean(a, countA, b, countB) {
  if (a === null) return b;
  if (b === null) return a;
  return (a * countA + b * countB) / (countA + countB);
}

/** The events of one job, as a page shows them. */
export class JobLog {
  constructor() {
    this.training = new Curve(CURVES);
    this.heldOut = new Curve(["valid_loss"], 400);
    this.events = [];
    this.decisions = [];
    this.numDropped = 0;
    this.latest = null;
    this.lastId = 0;
    this.statuses = 0;
  }

  add(event) {
    if (event.id <= this.lastId) return;
    this.lastId = event.id;
    const { data } = event;
    if (event.type === "metrics") {
      if (typeof data.train_loss === "number") {
        this.training.add(data.step, data);
        this.latest = data;
      }
      if (typeof data.valid_loss === "number") this.heldOut.add(data.step, data);
      return;
    }
    if (event.type === "status") this.statuses += 1;
    if (typeof data.valid_loss === "number") this.heldOut.add(data.step ?? 0, data);
    if (data.decision) this.decisions = [...this.decisions.slice(1 - MOST_EVENTS), event];
    this.numDropped += this.events.length >= MOST_EVENTS ? 1 : 0;
    this.events = [...this.events.slice(1 - MOST_EVENTS), event];
  }

  /** Both losses over the same steps, as a chart takes them. */
  get losses() {
    const [steps, training] = this.training.data;
    const [heldOutSteps, heldOut] = this.heldOut.data;
    const merged = [[], [], []];
    let i = 0;
    let j = 0;
    while (i < steps.length || j < heldOutSteps.length) {
      const next = Math.min(steps[i] ?? Infinity, heldOutSteps[j] ?? Infinity);
      merged[0].push(next);
      merged[1].push(steps[i] === next ? training[i++] : null);
      merged[2].push(heldOutSteps[j] === next ? heldOut[j++] : null);
    }
    return merged;
  }

  /** One of the other numbers over the steps. */
  curve(name) {
    const data = this.training.data;
    return [data[0], data[1 + CURVES.indexOf(name)]];
  }
}
