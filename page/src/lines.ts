// A log as it grows, kept in blocks of lines of which the browser draws only those that are near. Pure.
import { logLine } from './text.ts';

/** Characters of a line that are shown. */
const LONGEST = 4_000;
/** Lines that are shown: the last ones. */
export const MOST = 20_000;
/** Lines in a block: the browser draws only the blocks that are near. */
export const BLOCK = 200;

export interface Shown {
  blocks: string[];
  dropped: number;
}

/** A text that grows, as blocks of lines. */
export class Lines {
  private blocks: string[] = [];
  private last = BLOCK;
  private dropped = 0;
  private rest = '';
  private isCut = false;

  add(text: string): void {
    const lines = (this.rest + text).split('\n');
    this.rest = lines.pop() ?? '';
    for (const line of lines) {
      if (!this.isCut) this.push(line);
      this.isCut = false;
    }
    // of a line without an end no more is kept than is shown
    if (this.rest.length > LONGEST * 8) {
      if (!this.isCut) this.push(this.rest);
      [this.rest, this.isCut] = ['', true];
    }
    while ((this.blocks.length - 1) * BLOCK > MOST) {
      this.blocks.shift();
      this.dropped += BLOCK;
    }
  }

  private push(line: string): void {
    const shown = logLine(line, LONGEST);
    if (this.last === BLOCK) {
      this.blocks.push(shown);
      this.last = 1;
    } else {
      this.blocks[this.blocks.length - 1] += `\n${shown}`;
      this.last += 1;
    }
  }

  shown(): Shown {
    const rest = this.rest && !this.isCut ? [logLine(this.rest, LONGEST)] : [];
    return { blocks: [...this.blocks, ...rest], dropped: this.dropped };
  }
}
