// What others wrote, made harmless to look at, and times in words. Everything from a task, a file or a log goes
// through here before it is shown. Pure.

/** Characters that turn or hide what stands around them, and all other control characters. */
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b\u200e\u200f\u202a-\u202e\u2028\u2029\u2060-\u206f\ufeff\ufff9-\ufffb]|[\u{e0000}-\u{e0fff}]/gu;
/** Escape sequences of terminals: CSI, OSC (links, titles), strings, and single ones. */
const ANSI =
  /\u001b\[[0-?]*[ -/]*[@-~]|\u001b\][^\u0007\u001b]*(?:\u0007|\u001b\\)?|\u001b[PX^_][^\u001b]*(?:\u001b\\)?|\u001b[ -/]*[0-~]|\u009b[0-?]*[ -/]*[@-~]/g;

/** Shows what would not be seen, or would turn the text around, by its code. */
export function visible(text: string): string {
  return text.replace(/\r\n?/g, '\n').replace(UNSEEN, (c) => `\u27e8U+${(c.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, '0')}\u27e9`);
}

/** The same, on one line. */
export function oneLine(text: string): string {
  return visible(text.replace(/[\t\r\n]+/g, ' '));
}

/** A line of a log as a terminal would leave it: without colours, and what was written over is gone. */
export function logLine(line: string, longest: number): string {
  const plain = line.slice(0, longest * 4).replace(ANSI, '').replace(/\r+$/, '');
  const shown = visible(plain.slice(plain.lastIndexOf('\r') + 1));
  return shown.length > longest || line.length > longest * 4
    ? `${shown.slice(0, longest)}… (the line goes on)`
    : shown;
}

/** `8s`, `4m 05s`, `2h 10m`, `3d 4h`: two units at most. */
export function duration(seconds: number): string {
  const s = Math.max(0, Math.floor(seconds));
  const two = (n: number) => String(n).padStart(2, '0');
  if (s < 60) return `${s}s`;
  if (s < 3600) return `${Math.floor(s / 60)}m ${two(s % 60)}s`;
  if (s < 86400) return `${Math.floor(s / 3600)}h ${two(Math.floor(s / 60) % 60)}m`;
  return `${Math.floor(s / 86400)}d ${Math.floor(s / 3600) % 24}h`;
}

/** Seconds from one time to another, `now` where it is not over; nothing where it has not begun. */
export function seconds(start: string | null, end: string | null, now: number): number | undefined {
  if (!start) return undefined;
  return Math.max(0, ((end ? Date.parse(end) : now) - Date.parse(start)) / 1000);
}

const day = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short' });
const clock = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' });

/** A time of day, with its day where that is not today. */
export function when(time: string, now: number): string {
  const date = new Date(time);
  const isToday = date.toDateString() === new Date(now).toDateString();
  return isToday ? clock.format(date) : `${day.format(date)}, ${clock.format(date)}`;
}

/** `1 file`, `2 files`. */
export function count(n: number, one: string): string {
  return `${n.toLocaleString('en')} ${one}${n === 1 ? '' : 's'}`;
}

/** `a`, `a and b`, `a, b and c`. */
export function list(words: string[]): string {
  const last = words[words.length - 1] ?? '';
  return words.length < 2 ? last : `${words.slice(0, -1).join(', ')} and ${last}`;
}

/** A ServiceAccount without what all of them begin with. */
export function person(user: string): string {
  return oneLine(user.replace(/^system:serviceaccount:/, ''));
}

/** A link that may be followed: elsewhere by a protocol that runs nothing. */
export function safeUrl(url: string): string | undefined {
  try {
    const { protocol, href } = new URL(url);
    return ['http:', 'https:', 'mailto:'].includes(protocol) ? href : undefined;
  } catch {
    return undefined;
  }
}

/** Places on a line from 0 to 100 for times, where stretches in which nothing went on are cut short. */
export function scale(spans: [number, number][]): (time: number) => number {
  const sorted = spans.filter(([a, b]) => b >= a).sort((a, b) => a[0] - b[0]);
  const busy: [number, number][] = [];
  for (const [start, end] of sorted) {
    const last = busy[busy.length - 1];
    if (last && start <= last[1]) last[1] = Math.max(last[1], end);
    else busy.push([start, end]);
  }
  const total = busy.reduce((sum, [start, end]) => sum + (end - start), 0) || 1;
  const gap = total * 0.04;
  let at = 0;
  const pieces = busy.map(([start, end], i) => {
    const idle = i === 0 ? 0 : Math.min(gap, start - (busy[i - 1]?.[1] ?? start));
    const from = at + idle;
    at = from + (end - start);
    return { start, end, from };
  });
  const whole = at || 1;
  return (time) => {
    const piece = pieces.findLast((piece) => piece.start <= time) ?? pieces[0];
    return piece ? (Math.max(0, piece.from + Math.min(time, piece.end) - piece.start) / whole) * 100 : 0;
  };
}
