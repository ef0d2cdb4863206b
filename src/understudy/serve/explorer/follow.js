// Following a slider: one request at a time, the newest wish next, and no more asked for than the
// service answers in time.

export class Latest {
  // Runs `work` with the newest argument; those that came while it ran are passed over but the last.
  constructor(work) {
    this.work = work;
    this.busy = false;
    this.waiting = null;
  }

  async push(argument) {
    this.waiting = { argument };
    if (this.busy) return;
    this.busy = true;
    try {
      while (this.waiting) {
        const next = this.waiting.argument;
        this.waiting = null;
        await this.work(next);
      }
    } finally {
      this.busy = false;
    }
  }
}

// How many rows may be asked for while a slider moves, by how long the last answers took.
export class Pace {
  constructor({ aim = 22, rows = 120, least = 30, most = 600 } = {}) {
    Object.assign(this, { aim, rows, least, most });
  }

  took(milliseconds, rows) {
    if (rows < this.least / 2) return;
    const factor = Math.min(1.5, Math.max(0.5, this.aim / Math.max(1, milliseconds)));
    this.rows = Math.min(this.most, Math.max(this.least, Math.round(this.rows * factor)));
  }

  // Points of each of some lines.
  points(lines) {
    return Math.max(7, Math.min(41, Math.floor(this.rows / Math.max(1, lines))));
  }
}
