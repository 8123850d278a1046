// Builds the page into dist/: files of its own only, each with a packed copy beside it, and no script or style inside the HTML.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { constants, gzipSync } from 'node:zlib';
import { defineConfig, type Plugin } from 'vite';

/** Most bytes of all of it, packed. */
const MOST = 100_000;

/** What the licences of all that is in it want to be told. */
function licenses(): string {
  const { packages } = JSON.parse(readFileSync('package-lock.json', 'utf8')) as { packages: Record<string, { dev?: boolean; version: string; license: string }> };
  const shipped = Object.entries(packages).filter(([path, { dev }]) => path && !dev);
  const texts = shipped.map(([path, { version, license }]) => {
    const file = readdirSync(path).find((name) => /^licen[cs]e/i.test(name));
    return `${path.replace(/^.*node_modules\//, '')} ${version} (${license})\n\n${file ? readFileSync(`${path}/${file}`, 'utf8') : ''}`;
  });
  return texts.join(`\n${'-'.repeat(80)}\n\n`);
}

/** Whoever asks is sent what was packed here: the operator packs nothing. */
function packed(): Plugin {
  return {
    name: 'packed',
    apply: 'build',
    writeBundle({ dir }, bundle) {
      let bytes = 0;
      for (const name of Object.keys(bundle).filter((name) => /\.(js|css|html)$/.test(name))) {
        const packed = gzipSync(readFileSync(`${dir}/${name}`), { level: constants.Z_BEST_COMPRESSION });
        writeFileSync(`${dir}/${name}.gz`, packed);
        bytes += packed.length;
      }
      writeFileSync(`${dir}/licenses.txt`, licenses());
      console.log(`page: ${bytes} bytes, packed`);
      if (bytes > MOST) this.error(`the page may have ${MOST} bytes`);
    },
  };
}

export default defineConfig(({ isSsrBuild }) => ({
  plugins: isSsrBuild ? [] : [packed()],
  resolve: {
    alias: {
      // its browser version decodes by innerHTML, which the page's policy forbids
      'decode-named-character-reference': fileURLToPath(
        new URL('node_modules/decode-named-character-reference/index.js', import.meta.url),
      ),
    },
  },
  worker: { format: 'es' },
  build: {
    target: ['chrome123', 'firefox120', 'safari17.5'],
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    copyPublicDir: !isSsrBuild,
    // it would tell which part of a build of a second was slow
    rolldownOptions: { checks: { pluginTimings: false } },
  },
}));
