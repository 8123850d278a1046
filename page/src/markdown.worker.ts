// Reads markdown apart from the page: what somebody wrote to be slow to read makes nothing else slow, and is given up.
import { fromMarkdown } from 'mdast-util-from-markdown';
import { gfmFromMarkdown } from 'mdast-util-gfm';
import { gfm } from 'micromark-extension-gfm';

addEventListener('message', ({ data }: MessageEvent<string>) => {
  postMessage(fromMarkdown(data, { extensions: [gfm()], mdastExtensions: [gfmFromMarkdown()] }));
});
