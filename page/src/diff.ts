// What is different between versions: which files, and which lines of them. Pure.
import { diffLines } from 'diff';
import type { File } from './api.ts';
import { count } from './text.ts';

export interface Change {
  filename: string;
  /** Added, changed, left out. */
  what: '+' | '~' | '-';
}

/** In words. */
export const WHAT: Record<Change['what'], string> = { '+': 'added', '~': 'changed', '-': 'left out' };

/** What a version did to the files of the one before. */
export function changesBetween(before: File[], after: File[]): Change[] {
  const [old, new_] = [before, after].map((files) => new Map(files.map((file) => [file.filename, file.content])));
  const came = after.flatMap(({ filename, content }): Change[] => {
    const was = old!.get(filename);
    return was === undefined ? [{ filename, what: '+' }] : was === content ? [] : [{ filename, what: '~' }];
  });
  const gone = before.filter(({ filename }) => !new_!.has(filename)).map(({ filename }): Change => ({ filename, what: '-' }));
  return [...came, ...gone];
}

/** Lines of context around a change, and the longest that a difference may take, in milliseconds. */
const CONTEXT = 3;
const PATIENCE = 1_000;

export interface Row {
  kind: '+' | '-' | ' ' | '…';
  text: string;
}

/** The lines of a difference, without the long stretches that are the same; nothing where it takes too long. */
export function difference(before: string, after: string): Row[] | undefined {
  const parts = diffLines(before, after, { timeout: PATIENCE, ignoreNewlineAtEof: false });
  if (!parts) return undefined;
  return parts.flatMap((part, i): Row[] => {
    const lines = part.value.replace(/\n$/, '').split('\n');
    const kind = part.added ? '+' : part.removed ? '-' : ' ';
    if (kind !== ' ') return lines.map((text) => ({ kind, text }));
    const [isFirst, isLast] = [i === 0, i === parts.length - 1];
    const head = isFirst ? 0 : CONTEXT;
    const tail = isLast ? 0 : CONTEXT;
    if (lines.length <= head + tail + 1) return lines.map((text) => ({ kind, text }));
    const skipped = lines.length - head - tail;
    return [
      ...lines.slice(0, head).map((text): Row => ({ kind, text })),
      { kind: '…', text: `${count(skipped, 'line')} the same` },
      ...lines.slice(lines.length - tail).map((text): Row => ({ kind, text })),
    ];
  });
}
