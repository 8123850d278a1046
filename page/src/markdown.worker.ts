// Reads markdown apart from the page: what somebody wrote to be slow to read makes nothing else slow, and is given up.
import { fromMarkdown } from 'mdast-util-from-markdown';
import { gfmFromMarkdown } from 'mdast-util-gfm';
import { gfm } from 'micromark-extension-gfm';

addEventListener('message', ({ data }: MessageEvent<{ id: number; text: string }>) => {
  const tree = fromMarkdown(data.text, { extensions: [gfm()], mdastExtensions: [gfmFromMarkdown()] });
  postMessage({ id: data.id, tree });
});
