// Asking for a token: at first, and whenever the API no longer takes the one that there is. What is behind the dialog
// stays as it is, and goes on with the new token.
import { useState } from 'preact/hooks';
import { Failure, signIn, signOut, user, wanted } from './api.ts';
import { person } from './text.ts';
import { Command, Dialog, Problem } from './ui.tsx';

export function SignIn() {
  const [failure, setFailure] = useState<Failure>();
  const [isAsking, setAsking] = useState(false);
  const submit = async (event: SubmitEvent) => {
    event.preventDefault();
    const field = (event.target as HTMLFormElement).elements.namedItem('token') as HTMLInputElement;
    setAsking(true);
    try {
      await signIn(field.value.trim().replace(/^Bearer +/i, ''));
      field.value = '';
    } catch (error) {
      setFailure(error instanceof Failure ? error : new Failure(String(error), 0));
    }
    setAsking(false);
  };
  return (
    <Dialog title={wanted.value ? 'Sign in again' : 'Sign in'}>
      <form onSubmit={submit} class="signin">
        {wanted.value ? (
          <p role="alert">
            The API no longer takes your token: {wanted.value}. What you typed is still there, and goes on when {person(user.value)} has signed in again.
            Anybody else begins anew.
          </p>
        ) : (
          <p>With a token of your cluster. This page can do what you may do there, and no more.</p>
        )}
        <label>
          Token
          {/* no password field: browsers offer to keep what is typed there */}
          <input name="token" type="text" class="secret" required autocomplete="off" autocapitalize="off" spellcheck={false} autofocus />
        </label>
        {failure && (
          <Problem failure={failure}>{failure.status === 401 && <p>The token may be over, or copied in part: ask for a new one.</p>}</Problem>
        )}
        <button class="primary" disabled={isAsking}>
          {isAsking ? 'Asking…' : 'Sign in'}
        </button>
        {wanted.value && (
          <button type="button" onClick={signOut}>
            Sign out, and lose what was typed
          </button>
        )}
        <div class="hint">
          <p>Somebody with kubectl makes one for a ServiceAccount:</p>
          <Command text="kubectl create token NAME -n NAMESPACE --duration 8h" />
          <p>It is kept in this tab’s memory only: a reload asks for it again.</p>
        </div>
      </form>
    </Dialog>
  );
}
