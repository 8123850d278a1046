// Markdown as elements: its tree is read in a worker, and becomes nodes of the page one by one. No text ever becomes
// HTML, images are not fetched (a note must not phone home), and links go only where nothing runs.
import type { AlignType, Definition, Nodes, Root } from 'mdast';
import { Fragment, type ComponentChildren } from 'preact';
import { useEffect, useState } from 'preact/hooks';
import workerUrl from './markdown.worker.ts?worker&url';
import { oneLine, safeUrl, visible } from './text.ts';

/** The longest that a text may take to be read. */
const PATIENCE = 3_000;
/** Most elements, and the deepest: what is beyond is shown as text. */
const MOST = 20_000;
const DEEPEST = 60;

// One worker, which reads one text at a time; it is ended when a text is too slow, and made anew for the next --------

interface TrustedTypes {
  createPolicy(name: string, rules: { createScriptURL: () => string }): { createScriptURL(url: string): unknown };
}

const trusted = (globalThis as { trustedTypes?: TrustedTypes }).trustedTypes;
const policy = trusted?.createPolicy('worker', { createScriptURL: () => workerUrl });
let worker: Worker | undefined;
let last: Promise<unknown> = Promise.resolve();

/** The tree of a text, when its turn has come; nothing where it takes too long, or nobody wants it any more. */
function read(text: string, isWanted: () => boolean): Promise<Root | undefined> {
  const turn = last.then(() => (isWanted() ? readNow(text) : undefined));
  last = turn;
  return turn;
}

function readNow(text: string): Promise<Root | undefined> {
  const its = (worker ??= new Worker((policy?.createScriptURL(workerUrl) ?? workerUrl) as string, { type: 'module' }));
  return new Promise((resolve) => {
    const giveUp = () => {
      its.terminate();
      worker = undefined;
      resolve(undefined);
    };
    const timer = setTimeout(giveUp, PATIENCE);
    its.onmessage = ({ data }: MessageEvent<Root>) => {
      clearTimeout(timer);
      resolve(data);
    };
    its.onerror = () => {
      clearTimeout(timer);
      giveUp();
    };
    its.postMessage(text);
  });
}

/** A text as the markdown that it is. */
export function Markdown({ text }: { text: string }) {
  const [shown, setShown] = useState<{ text: string; nodes: ComponentChildren }>();
  useEffect(() => {
    let isWanted = true;
    void read(text, () => isWanted).then((tree) => {
      if (isWanted) setShown({ text, nodes: tree ? render(tree) : undefined });
    });
    return () => {
      isWanted = false;
    };
  }, [text]);
  // until it is read: what was there, so that nothing jumps while somebody types
  if (!shown) return <p class="faint">…</p>;
  if (shown.nodes === undefined) {
    return (
      <>
        <p class="faint">This text takes too long to read as markdown: here it is as it was written.</p>
        <pre class="raw">{visible(text)}</pre>
      </>
    );
  }
  return <div class="markdown">{shown.nodes}</div>;
}

/** The elements of a tree. */
export function render(tree: Root): ComponentChildren {
  const definitions = new Map<string, Definition>();
  const collect = (node: Nodes, depth: number) => {
    // the first one counts
    if (node.type === 'definition' && !definitions.has(node.identifier)) definitions.set(node.identifier, node);
    if ('children' in node && depth < DEEPEST) for (const child of node.children) collect(child, depth + 1);
  };
  collect(tree, 0);
  let made = 0;

  const children = (node: { children: Nodes[] }, depth: number) => node.children.map((child, i) => <Fragment key={i}>{one(child, depth + 1)}</Fragment>);

  const anchor = (url: string, content: ComponentChildren) => {
    const safe = safeUrl(url);
    return safe ? (
      <a href={safe} title={oneLine(safe)} target="_blank" rel="noopener noreferrer">
        <bdi>{content}</bdi>
      </a>
    ) : (
      <>
        {content} <code class="url">{oneLine(url).slice(0, 200)}</code>
      </>
    );
  };

  const image = (alt: string | null | undefined, url: string) => (
    <span class="image">
      <span class="faint">image: </span>
      {anchor(url, oneLine(alt || 'image'))}
    </span>
  );

  const row = (cells: Nodes[], align: (AlignType | undefined)[], Cell: 'th' | 'td', depth: number) => (
    <tr>
      {cells.map((cell, i) => (
        <Cell key={i} class={align[i] ?? undefined} scope={Cell === 'th' ? 'col' : undefined}>
          {'children' in cell && children(cell, depth)}
        </Cell>
      ))}
    </tr>
  );

  const one = (node: Nodes, depth: number): ComponentChildren => {
    if (++made > MOST) return made === MOST + 1 ? <p class="faint">The rest is too much to show: see it as it was written.</p> : null;
    if (depth > DEEPEST) return '…';
    switch (node.type) {
      case 'text':
        return visible(node.value);
      case 'paragraph':
        return <p dir="auto">{children(node, depth)}</p>;
      case 'heading': {
        // the page's own headings come before
        const Heading = `h${Math.min(6, node.depth + 2)}` as 'h3';
        return <Heading dir="auto">{children(node, depth)}</Heading>;
      }
      case 'emphasis':
        return <em>{children(node, depth)}</em>;
      case 'strong':
        return <strong>{children(node, depth)}</strong>;
      case 'delete':
        return <del>{children(node, depth)}</del>;
      case 'inlineCode':
        return <code>{visible(node.value)}</code>;
      case 'code':
        return (
          <pre tabIndex={0}>
            <code>{visible(node.value)}</code>
          </pre>
        );
      // as it was written: it is no HTML here
      case 'html':
        return <code class="html">{visible(node.value)}</code>;
      case 'break':
        return <br />;
      case 'thematicBreak':
        return <hr />;
      case 'blockquote':
        return <blockquote>{children(node, depth)}</blockquote>;
      case 'list':
        return node.ordered ? <ol start={node.start ?? 1}>{children(node, depth)}</ol> : <ul>{children(node, depth)}</ul>;
      case 'listItem':
        return (
          <li class={typeof node.checked === 'boolean' ? 'task' : undefined}>
            {typeof node.checked === 'boolean' && <span role="img" aria-label={node.checked ? 'done' : 'to do'}>{node.checked ? '☑ ' : '☐ '}</span>}
            {children(node, depth)}
          </li>
        );
      case 'link':
        return anchor(node.url, children(node, depth));
      case 'image':
        return image(node.alt, node.url);
      case 'linkReference':
        return anchor(definitions.get(node.identifier)?.url ?? '', children(node, depth));
      case 'imageReference':
        return image(node.alt, definitions.get(node.identifier)?.url ?? '');
      case 'footnoteReference':
        return <sup>[{oneLine(node.label ?? node.identifier)}]</sup>;
      case 'footnoteDefinition':
        return (
          <div class="footnote">
            <sup>[{oneLine(node.label ?? node.identifier)}]</sup> {children(node, depth)}
          </div>
        );
      case 'table': {
        const [head, ...rest] = node.children;
        const align = node.align ?? [];
        return (
          <div class="wide" tabIndex={0} role="region" aria-label="Table">
            <table>
              <thead>{head && row(head.children, align, 'th', depth)}</thead>
              <tbody>
                {rest.map((line, i) => (
                  <Fragment key={i}>{row(line.children, align, 'td', depth)}</Fragment>
                ))}
              </tbody>
            </table>
          </div>
        );
      }
      default:
        return 'children' in node ? children(node as { children: Nodes[] }, depth) : null;
      case 'definition':
        return null;
    }
  };

  return children(tree, 0);
}
