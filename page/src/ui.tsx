// Small parts that several views share.
import { useComputed } from '@preact/signals';
import type { ComponentChildren } from 'preact';
import { useEffect, useId, useLayoutEffect, useRef, useState } from 'preact/hooks';
import type { Failure } from './api.ts';
import { now } from './state.ts';
import { duration, oneLine, seconds, visible } from './text.ts';
import type { State } from './words.ts';

/** A phase, or what became of a version: a mark and a word, so that no colour has to be told apart. */
export function Badge({ state }: { state: State }) {
  return <span class={`badge ${state.toLowerCase()}`}>{state}</span>;
}

/** How long something takes; goes on by itself as long as it is not over. */
export function Elapsed({ start, end }: { start: string | null; end: string | null }) {
  if (!start) return null;
  return end ? <>{duration(seconds(start, end, 0)!)}</> : <Running start={start} />;
}

function Running({ start }: { start: string }) {
  return <>{useComputed(() => duration(seconds(start, null, now.value)!))}</>;
}

/** A name that somebody chose: on one line, and in a direction of its own. */
export function Name({ text }: { text: string }) {
  return <bdi>{oneLine(text)}</bdi>;
}

/** What the API says is wrong, as it says it; with the violations that stand nowhere else. */
export function Problem({ failure, beside, children }: { failure: Failure; beside?: (field: string) => boolean; children?: ComponentChildren }) {
  const left = failure.violations.filter((violation) => !beside?.(violation.field));
  const isSaid = failure.violations.length > 0 && left.length === 0;
  return (
    <div class="problem" role="alert">
      <p>
        <strong>{failure.code.replaceAll('_', ' ')}</strong> {isSaid ? 'What is wrong stands beside it.' : visible(failure.message)}
      </p>
      {left.length > 0 && (
        <ul>
          {left.map((violation) => (
            <li key={violation.field + violation.message}>
              <code>{oneLine(violation.field)}</code>: {visible(violation.message)}
            </li>
          ))}
        </ul>
      )}
      {children}
    </div>
  );
}

/** Where there is nothing to show: why, and what to do. */
export function Empty({ title, children }: { title: string; children?: ComponentChildren }) {
  return (
    <div class="empty">
      <svg viewBox="0 0 48 48" aria-hidden="true">
        <path d="M10 14h28M10 24h20M10 34h12" />
      </svg>
      <h2>{title}</h2>
      {children}
    </div>
  );
}

/** A native dialog, open for as long as it is there. Escape asks `onClose`. */
export function Dialog({ title, onClose, wide, children }: { title: string; onClose?: () => void; wide?: boolean; children: ComponentChildren }) {
  const ref = useRef<HTMLDialogElement>(null);
  const id = useId();
  useLayoutEffect(() => {
    const dialog = ref.current!;
    dialog.showModal();
    return () => {
      ref.current = null;
      // gives the focus back
      dialog.close();
    };
  }, []);
  return (
    <dialog
      ref={ref}
      class={wide ? 'wide' : ''}
      aria-labelledby={id}
      onCancel={(event) => {
        event.preventDefault();
        onClose?.();
      }}
      onKeyDown={(event) => {
        if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) (event.target as HTMLElement).closest('form')?.requestSubmit();
      }}
      // a second Escape closes it whatever is said to the first
      onClose={() => {
        if (!ref.current?.isConnected) return;
        if (onClose) onClose();
        else ref.current.showModal();
      }}
    >
      <header>
        <h2 id={id}>{title}</h2>
        {onClose && (
          <button type="button" class="icon" aria-label="Close" onClick={onClose}>
            <svg viewBox="0 0 24 24" aria-hidden="true">
              <path d="M6 6l12 12M18 6L6 18" />
            </svg>
          </button>
        )}
      </header>
      {children}
    </dialog>
  );
}

/** A command to copy. */
export function Command({ text }: { text: string }) {
  const [isCopied, setCopied] = useState(false);
  useEffect(() => {
    const timer = isCopied ? setTimeout(() => setCopied(false), 2000) : undefined;
    return () => clearTimeout(timer);
  }, [isCopied]);
  // a page without TLS may not write there
  const copy = () => navigator.clipboard?.writeText(text).then(() => setCopied(true), () => {});
  return (
    <span class="command">
      <code>{text}</code>
      {navigator.clipboard && (
        <button type="button" onClick={copy}>
          {isCopied ? 'Copied' : 'Copy'}
        </button>
      )}
    </span>
  );
}

/** Which rows of a long list are near what is looked at, where each is so high. */
export function useRows(total: number, height: number) {
  const ref = useRef<HTMLDivElement>(null);
  const [place, setPlace] = useState({ first: 0, last: 30 });
  useLayoutEffect(() => {
    const box = ref.current;
    if (!box) return;
    const look = () => {
      // in steps: a row more or less is no reason to draw
      const first = Math.floor(box.scrollTop / height / 4) * 4 - 4;
      const last = first + Math.ceil(box.clientHeight / height) + 12;
      setPlace((old) => (old.first === first && old.last === last ? old : { first, last }));
    };
    look();
    const observer = new ResizeObserver(look);
    observer.observe(box);
    box.addEventListener('scroll', look, { passive: true });
    return () => {
      observer.disconnect();
      box.removeEventListener('scroll', look);
    };
  }, [height]);
  const near = place.last - place.first;
  return { ref, first: Math.max(0, Math.min(place.first, total)), last: Math.min(total, place.last), near };
}
